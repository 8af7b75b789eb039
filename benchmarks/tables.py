"""Memory and time of the stages that read the tables of all tiles, on made studies that differ in their number of tiles alone.

A study has as many real tiles as synthetic ones, of 8 px, so that rows weigh more than pixels. Each stage runs in a process of its own, without
workers. `plan` plans a tile for each; `filter` judges by `quality`, the cheapest filter; `evaluate` and `uplift` look at as many tiles as they do by
default, `uplift` with networks of two steps; `emit` writes Parquet; `report` writes its page.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from benchmarks.run import anonymous_memory, flat, in_process, report
from histoloom.config import Cluster, Params
from histoloom.data.commit import commit_part, write_json
from histoloom.data.lineage import FILE, Lineage
from histoloom.data.plan import EVALUATION
from histoloom.data.schema import SYNTHETIC_ROW, TILE_ROW, write_rows
from histoloom.data.store import TileWriter, cut_arrays
from histoloom.data.study_folder import Study
from histoloom.report.page import TRAINED
from histoloom.studies.stage_work import run_stage

PX, PART = 8, 5_000
STAGES = ("plan", "train_filters", "filter", "evaluate", "uplift", "emit", "report")
_GENERATOR = "0" * 64


def params(count: int) -> Params:
    return Params.model_validate({
        "tile": {"mpp": 0.5, "tile_px": PX, "stride_px": PX, "labels": {"source": "slide", "classes": ["a", "b"]}},
        "train_autoencoder": {"down_factor": 2},
        "train_denoiser": {"conditions": ["label"], "channels": [16, 32]},
        "plan": {"target": "none", "batch_size": 100, "batches_per_part": 10, "requests": [{"name": "more", "tiles": count}]},
        "filter": {"use": ["quality"], "min_yield": 0},
        "uplift": {"arms": ["real", "strong+synthetic"], "seeds": 2, "steps": 2, "image_px": 32},
        "emit": {"formats": ["parquet"]},
    })  # fmt: skip


def make_study(root: Path, count: int) -> None:
    """Both stores and what else the stages read, of `count` tiles each."""
    for number, first in enumerate(range(0, count, PART)):
        size = min(PART, count - first)
        for store, rows in (("tiles", _real), ("synthetic", _synthetic)):
            commit_part(root / "data" / store, f"p{number:05d}", partial(_write, rows, first, size))
    write_json(root / "data/synthetic" / FILE, {_GENERATOR: Lineage().record})
    trained = [f"reports/{stage}" for stage in TRAINED]
    for place in ("models/encoders", "data/woven_tiles", "data/woven", "manifests", "data/plan", *trained):
        (root / place).mkdir(parents=True, exist_ok=True)
    Lineage().save(root / "models/encoders")
    for stage in ("sample", "sample_slides"):
        write_json(root / f"reports/{stage}/metrics.json", {})
    reports = root / "reports/tile"
    facts = {"tiles": count, "slides": count // 1000, "patients": count // 1000, "quarantined": 0, "tiles_by_split": {}}
    write_json(reports / "metrics.json", facts)
    (reports / "slides.csv").write_text("slide_id\nS00000\n", encoding="utf-8")


def _real(ids: np.ndarray) -> tuple[pd.DataFrame, pa.Schema]:
    groups = [f"P{n // 1000:05d}" for n in ids]
    return pd.DataFrame({
        "tile_id": [f"S{n // 1000:05d}_{8 * n}_{n}" for n in ids], "source": "real", "slide_id": [f"S{n // 1000:05d}" for n in ids],
        "patient_id": groups, "split_group": groups, "split": np.where(ids // 1000 % 10 == 0, "val", "train"),
        "label": np.where(ids % 2, "a", "b"), "x_level0_px": 8 * ids, "y_level0_px": ids, "mpp": 0.5, "tissue_fraction": 1.0,
        "caption": [f"tissue of form {n % 500}" for n in ids], "spot_id": None, "masked": False, "predicted": False, "repaired": 0.0, "dataset": "", "slide_fields": "{}",
    }), TILE_ROW  # fmt: skip


def _synthetic(ids: np.ndarray) -> tuple[pd.DataFrame, pa.Schema]:
    guidance = [{"condition": "all", "scale": 3.0, "start": 1.0, "end": 0.0}]
    return pd.DataFrame({
        "tile_id": [f"more-{n:06d}" for n in ids], "source": "synthetic", "slide_id": "", "patient_id": "",
        "split_group": [f"P{(n // 1000) | 1:05d}" for n in ids], "split": "train", "label": np.where(ids % 2, "a", "b"), "x_level0_px": -1,
        "y_level0_px": -1, "mpp": 0.5, "tissue_fraction": np.nan, "caption": [f"tissue of form {n % 500}" for n in ids], "spot_id": None,
        "masked": False, "repaired": 0.0, "rna": None, "genotype": None, "cohort": None, "number": None, "seed": ids.astype(np.uint64), "scheduler": "ddim",
        "steps": 20, "precision": "fp32", "window_layout": None, "generator_sha256": _GENERATOR,
        "condition_ref": [f"S{n // 1000:05d}_{8 * n}_{n}" for n in ids], "program": "", "input_ref": None, "like_ref": None,
        "guidance": [guidance] * len(ids), "request": np.where(ids % 50 > 1, "more", EVALUATION),
        "purpose": np.where(ids % 50 > 1, "augment", "evaluate"),
        "ancestors": [[f"P{(n // 1000) | 1:05d}"] for n in ids],
    }), SYNTHETIC_ROW  # fmt: skip


def _write(rows, first: int, count: int, folder: Path) -> None:
    pictures = np.random.default_rng(first).integers(40, 220, (count, PX, PX, 3), dtype=np.uint8)
    with TileWriter(folder, cut_arrays(PX), shard_tiles=1024) as writer:
        for picture in pictures:
            writer.add(image=picture)
    Image.fromarray(pictures[0]).save(folder / "thumbnail.jpg")
    table, schema = rows(np.arange(first, first + count))
    write_rows(table, folder / "rows.parquet", schema)


def run_one(root: Path, stage: str, count: int, workers: int) -> dict[str, float]:
    """One stage: the greatest anonymous memory of this process in MiB, and its seconds."""
    study = Study(root)
    vars(study).update(stated=params(count), params=params(count), cluster=Cluster(workers=workers))

    start = time.perf_counter()
    with anonymous_memory() as seen:
        run_stage(stage, study)
    return {"mib": max(seen), "s": time.perf_counter() - start}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tiles", type=int, nargs="+", default=(10_000, 100_000, 1_000_000), help="the numbers of tiles"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=STAGES,
        default=STAGES,
        help="these stages; those whose output they read must be among them",
    )
    parser.add_argument("--work", type=Path, help="keep the studies here")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--one", nargs=4, metavar=("FOLDER", "STAGE", "TILES", "WORKERS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, stage, count, workers = options.one
        print(json.dumps(run_one(Path(folder), stage, int(count), int(workers))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root, found = options.work or Path(temporary), {stage: {} for stage in STAGES if stage in options.only}
        for count in options.tiles:
            make_study(root / str(count), count)
            for stage in found:
                found[stage][count] = measured(root / str(count), stage, count)
                print(count, stage, found[stage][count], flush=True)
            if options.work is None:
                shutil.rmtree(root / str(count))
    keys = {
        stage: {"peak_mib": {str(count): result["mib"] for count, result in of.items()}, **_growth(of)}
        for stage, of in found.items()
    }
    seconds = {stage: {f"s_{count}": result["s"] for count, result in of.items()} for stage, of in found.items()}
    report("tables", False, {"tiles": list(options.tiles), "tile_px": PX}, flat(keys), flat(seconds), options.json)


def _growth(of: dict[int, dict[str, float]]) -> dict[str, float]:
    """From the least number of tiles to the greatest; nothing where there is one number alone."""
    few, many = min(of), max(of)
    if few == many:
        return {}
    return {
        "slope_of_time": math.log(of[many]["s"] / of[few]["s"]) / math.log(many / few),
        "bytes_a_tile": (of[many]["mib"] - of[few]["mib"]) * 2**20 / (many - few),
    }


def measured(root: Path, stage: str, count: int, workers: int = 0) -> dict[str, float]:
    """A stage in a process of its own."""
    return in_process("benchmarks.tables", "--one", str(root), stage, str(count), str(workers))


if __name__ == "__main__":
    main()
