"""Tiles per second of the `tile` stage from a set of JPEGs that are cut already, over those of the old way: a tile as a slide.

Both run the whole stage in the same form: manifest or set listed, every picture hashed, decoded, written, synced and
published, by two workers. The set is taken up twice: new, and again with nothing changed.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.run import arguments, report, seconds
from benchmarks.tiling import texture
from histoloom.config import Cluster, Params
from histoloom.data.study_folder import Study
from histoloom.progress import console
from histoloom.studies.stage_work import run_stage

TILE_PX = 128
MPP = 0.499
WORKERS = 2
SLIDES = 20


def write_tiles(folder: Path, count: int) -> list[Path]:
    """JPEGs of tissue in two class folders, each a random place of the texture."""
    picture, draw = texture(), np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
    paths = []
    for number in range(count):
        y, x = (int(draw.integers(0, side - TILE_PX)) for side in picture.shape[:2])
        path = folder / "ab"[number % 2] / f"S{number % SLIDES:02d}_{number:06d}.jpg"
        Image.fromarray(picture[y : y + TILE_PX, x : x + TILE_PX]).save(path, quality=90)
        paths.append(path)
    return paths


def take_up(root: Path, tile: dict) -> None:
    """Run the stage in a study of these params."""
    params = Params.model_validate(
        {
            "tile": {
                "mpp": MPP,
                "tile_px": TILE_PX,
                "stride_px": TILE_PX,
                "labels": {"source": "slide", "classes": ["a", "b"]},
                **tile,
            }
        }
    )
    root.mkdir(exist_ok=True)
    study = Study(root)
    vars(study).update(stated=params, params=params, cluster=Cluster(workers=WORKERS))
    run_stage("tile", study)


def as_slides(paths: list[Path], folder: Path, manifest: Path) -> dict:
    """Params of the old way: a row of slides.csv for each tile."""
    lines = ["slide_id,path,patient_id,mpp,label"]
    lines += [f"{p.stem},{p.relative_to(folder)},{p.stem[:3]},{MPP},{p.parent.name}" for p in paths]
    manifest.write_text("\n".join(lines) + "\n", encoding="utf-8")
    tissue = {"min_fraction": 0.0, "min_area_um2": 0.0, "leave_out": []}
    return {"manifest": str(manifest), "slides_root": str(folder), "tissue": tissue, "max_bad_slides": len(paths)}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    before, console.file = console.file, io.StringIO()
    try:
        yield
    finally:
        console.file = before


def main() -> None:
    options = arguments(__doc__)
    count, of_old = (4_000, 200) if options.smoke else (100_000, 1_000)
    with tempfile.TemporaryDirectory() as folder, quiet():
        root = Path(folder)
        paths = write_tiles(root / "tiles", count)
        stated = {"path": str(root / "tiles"), "mpp": MPP, "patterns": {"patient_id": "/(S[0-9]+)_"}}
        as_set = {"manifest": None, "sets": [stated]}
        new = seconds(lambda: take_up(root / "set", as_set))
        again = seconds(lambda: take_up(root / "set", as_set))
        old = seconds(lambda: take_up(root / "slides", as_slides(paths[:of_old], root / "tiles", root / "slides.csv")))
        files = [sum(len(names) for _, _, names in os.walk(root / name / "data/tiles")) for name in ("set", "slides")]
    rates = {"set": count / new.wall, "set_again": count / again.wall, "a_tile_a_slide": of_old / old.wall}
    report(
        "tile_sets",
        options.smoke,
        {"tiles": count, "tiles_as_slides": of_old, "tile_px": TILE_PX, "workers": WORKERS},
        {"set_tiles_per_s_over_a_tile_a_slide": rates["set"] / rates["a_tile_a_slide"]},
        {f"{name}_tiles_per_s": rate for name, rate in rates.items()}
        | {"set_files": files[0], "a_tile_a_slide_files_per_tile": files[1] / of_old},
        options.json,
    )


if __name__ == "__main__":
    main()
