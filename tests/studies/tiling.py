"""Studies of a few slides, tiled in this process."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

from histoloom.config import Params, Tile
from tests.build import make_study
from tests.stages import run, study_of

SIDE = 384


def tile_slides(config: Tile, seed: int = 0, workers: int = 0) -> dict:
    """The stage's metrics, and how many slides it cut anew."""
    parts = Path(".work/tile/shared/parts")
    before = set(parts.iterdir()) if parts.is_dir() else set()
    metrics = run("tile", study_of(Params(tile=config, seed=seed), workers=workers))
    return metrics | {"slides_made": len(set(parts.iterdir()) - before)}


def slide_row(number: int, **changes) -> dict:
    return {"slide_id": f"s{number}", "path": f"s{number}.svs", "patient_id": f"p{number}", "label": "tumour"} | changes


POLYGONS = {"labels": {"source": "polygons", "classes": ["tumour", "stroma"]}}
ROWS = [slide_row(number) for number in range(3)]
study = partial(make_study, ".")


def slides_report() -> dict[str, dict]:
    """reports/tile/slides.csv: slide_id to its row."""
    with Path("reports/tile/slides.csv").open(encoding="utf-8") as stream:
        return {row["slide_id"]: row for row in csv.DictReader(stream)}
