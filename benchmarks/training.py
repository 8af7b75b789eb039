"""Memory and steps a second of the stages that train, on made stores of tiles of 64 px that differ in their number alone.

Each stage runs in a process of its own, whose anonymous memory is read while it works: what is mapped from files is not in it.
At the smaller number it runs again with all tiles read into memory beforehand, as a reference of its speed; and the denoiser once more
on one thread, by one process and by two that share each batch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from benchmarks.run import anonymous_memory, flat, in_process, report
from benchmarks.tiling import texture
from histoloom.config import Cluster, Params
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.data.commit import commit_part, write_json
from histoloom.data.lineage import Lineage
from histoloom.data.mapped import mapped_arrays
from histoloom.data.store import TileStore, TileWriter, cut_arrays
from histoloom.data.study_folder import Study
from histoloom.studies import train_denoiser
from histoloom.studies.stage_work import run_stage
from histoloom.training import clip, fit_target, loop, tile_encoder

PX, FACTOR, PART, CAPTIONS, REPEATS = 64, 4, 10_000, 500, 3
STAGES = ("train_encoders", "train_autoencoder", "train_denoiser")


def params(steps: int) -> Params:
    net = {"channels": [16, 32]}
    return Params.model_validate({
        "tile": {"mpp": 0.5, "tile_px": PX, "stride_px": PX, "labels": {"source": "slide", "classes": ["a", "b"]}},
        "train_encoders": {
            "text": {"source": "train", "steps": steps, "batch_size": 64, "image_px": PX, "width": 32},
            "image": {"source": "train", "steps": steps, "batch_size": 64, "image_px": PX, "width": 8},
        },
        "train_autoencoder": {"channels": 16, "down_factor": FACTOR, "crop_px": 32, "batch_size": 16, "steps": steps, "perceptual_weight": 0},
        "train_denoiser": {"conditions": ["label", "text", "image"], "batch_size": 32, "steps": steps, **net},
    })  # fmt: skip


def make_study(root: Path, count: int) -> None:
    """A store of `count` tiles, a hundredth of them val, and what `encode` would have written of it."""
    picture = texture()
    for number, first in enumerate(range(0, count, PART)):
        size = min(PART, count - first)
        commit_part(root / "data/tiles", f"p{number:04d}", partial(_write_tiles, picture, first, size))
        commit_part(root / "data/encoded", f"p{number:04d}", partial(_write_encoded, first, size))
    specs = [("label", "vector", ("a", "b")), ("image", "vector", tuple(f"{n}" for n in range(128)))]
    written = [vars(ConditionSpec(name, shape, len(channels), 0.1, channels)) for name, shape, channels in specs]
    write_json(root / "data/encoded/conditions.json", written)
    Lineage().save(root / "data/encoded")


def _write_tiles(picture: np.ndarray, first: int, count: int, folder: Path) -> None:
    draw = np.random.default_rng(first)
    places = draw.integers(0, np.array(picture.shape[:2]) - PX, (count, 2))
    with TileWriter(folder, cut_arrays(PX)) as writer:
        for y, x in places:
            writer.add(image=picture[y : y + PX, x : x + PX])
    ids = np.arange(first, first + count)
    pd.DataFrame({
        "tile_id": [f"tile_{n:09d}" for n in ids], "source": "real", "slide_id": [f"S{n // 1000:05d}" for n in ids],
        "patient_id": [f"P{n // 1000:05d}" for n in ids], "split_group": [f"P{n // 1000:05d}" for n in ids],
        "split": np.where(ids % 100 == 0, "val", "train"), "label": np.where(ids % 2, "a", "b"), "x_level0_px": places[:, 1],
        "y_level0_px": places[:, 0], "mpp": 0.5, "tissue_fraction": 1.0, "caption": [f"tissue of form {n % CAPTIONS}" for n in ids],
        "spot_id": None, "masked": False, "predicted": False, "dataset": None, "slide_fields": "{}",
    }).to_parquet(folder / "rows.parquet")  # fmt: skip


def _write_encoded(first: int, count: int, folder: Path) -> None:
    draw, side = np.random.default_rng(first), PX // FACTOR
    data = draw.standard_normal((count, 1, 4, side, side), np.float32)
    label = np.eye(2, dtype=np.float32)[np.arange(count) % 2]
    arrays = {"data": data, "label": label, "image": draw.standard_normal((count, 128), np.float32)}
    save_file(arrays, folder / "encoded.safetensors")


@contextmanager
def _in_memory():
    """Training as it would be with all that it reads in memory."""

    def read(store: TileStore, rows: pd.DataFrame, folder: Path, change=None) -> np.ndarray:
        return np.concatenate([tiles if change is None else change(tiles) for tiles in store.batches(rows, 256)])

    def joined(folder: Path) -> dict[str, np.ndarray]:
        parts = [mapped_arrays(path) for path in sorted(Path(folder).glob("*/encoded.safetensors"))]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    with (
        patch.object(fit_target, "unpacked_tiles", read),
        patch.object(clip, "unpacked_tiles", read),
        patch.object(tile_encoder, "unpacked_tiles", read),
        patch.object(train_denoiser, "read_encoded", joined),
    ):
        yield


def run_one(root: Path, stage: str, steps: int, how: str) -> dict[str, float]:
    """One stage, in this process: its greatest anonymous memory in MiB, the median time of a step, and the last loss.

    how : mapped, memory, or a number of processes of one thread.
    """
    study, times = Study(root), []
    threads = {"training_threads": 1, "training_processes": int(how)} if how.isdigit() else {}
    vars(study).update(stated=params(steps), params=params(steps), cluster=Cluster(workers=1, **threads))

    def timed(self, step: int):
        start = time.perf_counter()
        numbers = take(self, step)
        times.append(time.perf_counter() - start)
        return numbers

    take = loop._Loop.step
    with (
        anonymous_memory() as seen,
        patch.object(loop._Loop, "step", timed),
        _in_memory() if how == "memory" else nullcontext(),
    ):
        run_stage(stage, study)
    loss = json.loads((study.reports(stage) / "metrics.json").read_text(encoding="utf-8")).get("loss_last_100_steps")
    return {"mib": max(seen), "step_s": float(np.median(times)), "loss": loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, nargs=2, default=(10_000, 300_000), help="the two numbers of tiles")
    parser.add_argument("--steps", type=int, default=60, help="of each training")
    parser.add_argument("--work", type=Path, help="keep the stores here")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--one", nargs=3, metavar=("FOLDER", "STAGE", "HOW"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, stage, how = options.one
        print(json.dumps(run_one(Path(folder), stage, options.steps, how)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root, found, steps = options.work or Path(temporary), {}, {}
        few, many = options.tiles
        for count in options.tiles:
            make_study(root / str(count), count)
        for stage in STAGES:
            of_many = _in_process(root / str(many), stage, options.steps, "mapped")
            pairs = _pairs(root / str(few), stage, options.steps, ("mapped", "memory"))
            of = {few: pairs[0][0], many: of_many}
            found[stage] = {
                "train_peak_rss_mib": {str(count): result["mib"] for count, result in of.items()},
                "growth": of[many]["mib"] / of[few]["mib"],
                "steps_per_s_over_in_memory": _faster(pairs),
            }
            steps[stage] = {"step_s": {str(count): result["step_s"] for count, result in of.items()}}
        pairs = _pairs(root / str(few), "train_denoiser", options.steps, ("2", "1"))
        found["processes"] = {
            "two_over_one": _faster(pairs),
            "loss_difference": max(abs(one["loss"] - two["loss"]) for two, one in pairs),
        }
    sizes = {"tiles": list(options.tiles), "tile_px": PX, "steps": options.steps}
    report("training", False, sizes, flat(found), flat(steps), options.json)


def _pairs(root: Path, stage: str, steps: int, ways: tuple[str, str]) -> list[tuple[dict, dict]]:
    """A stage in two ways, in turn: processes differ in speed by more than the ways do."""
    return [
        (_in_process(root, stage, steps, ways[0]), _in_process(root, stage, steps, ways[1])) for _ in range(REPEATS)
    ]


def _faster(pairs: list[tuple[dict, dict]]) -> float:
    """By which factor the first way is faster, the median over pairs."""
    return statistics.median(second["step_s"] / first["step_s"] for first, second in pairs)


def _in_process(root: Path, stage: str, steps: int, how: str) -> dict[str, float]:
    shutil.rmtree(root / ".work", ignore_errors=True)
    return in_process("benchmarks.training", "--steps", str(steps), "--one", str(root), stage, how)


if __name__ == "__main__":
    main()
