"""Memory and steps a second of the stages that train, on made stores of tiles of 64 px that differ in their number alone.

Each stage runs in a process of its own, whose anonymous memory is read while it works: what is mapped from files is not in it.
At the smaller number it runs again, and has its tiles in memory too: its steps read from files and from memory in turn, since two processes
differ in speed by more than that does. The denoiser runs once more on one thread, by one process and by two that share each batch: the small one
of this benchmark, and one as large as the packaged model's.
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

from benchmarks.packaged import recipe
from benchmarks.run import anonymous_memory, flat, in_process, report
from benchmarks.tiling import texture
from histoloom.config import Cluster, Params
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.data.commit import commit_part, write_json
from histoloom.data.lineage import Lineage
from histoloom.data.mapped import JoinedRows, unpacked_tiles
from histoloom.data.store import TileStore, TileWriter, cut_arrays
from histoloom.data.study_folder import Study
from histoloom.studies import train_denoiser
from histoloom.studies.stage_work import run_stage
from histoloom.training import clip, fit_target, loop, tile_encoder
from histoloom.training.denoiser import read_encoded

PX, FACTOR, PART, CAPTIONS, REPEATS = 64, 4, 10_000, 500, 3
RowArray = np.ndarray | JoinedRows
STAGES = ("train_encoders", "train_autoencoder", "train_denoiser")


NETWORKS = ("small", "packaged")
"""Denoisers: a small one, and one as large as the packaged model's."""


def params(steps: int, network: str = "small") -> Params:
    packaged = recipe()["train_denoiser"] if network == "packaged" else {}
    net = {key: packaged[key] for key in ("channels", "attention_head_dim")} if packaged else {"channels": [16, 32]}
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


class _InTurn:
    """Rows (n, ...) that are read from files and from memory in turn. `from_memory` says which."""

    from_memory = False

    def __init__(self, mapped: RowArray):
        self.mapped, self.shape = mapped, mapped.shape
        self.memory = np.concatenate(
            [mapped[np.arange(i, min(i + PART, len(mapped)))] for i in range(0, len(mapped), PART)]
        )

    def __len__(self) -> int:
        return len(self.mapped)

    def __getitem__(self, index: np.ndarray | tuple[np.ndarray, ...]) -> np.ndarray:
        return (self.memory if self.from_memory else self.mapped)[index]


@contextmanager
def _in_turn():
    """Training that has all that it reads in memory too, and reads it there at every second step."""

    def read(store: TileStore, rows: pd.DataFrame, folder: Path, change=None) -> _InTurn:
        return _InTurn(unpacked_tiles(store, rows, folder, change))

    def encoded(folder: Path) -> dict[str, _InTurn]:
        return {name: _InTurn(array) for name, array in read_encoded(folder).items()}

    with (
        patch.object(fit_target, "unpacked_tiles", read),
        patch.object(clip, "unpacked_tiles", read),
        patch.object(tile_encoder, "unpacked_tiles", read),
        patch.object(train_denoiser, "read_encoded", encoded),
    ):
        yield


def run_one(root: Path, stage: str, steps: int, how: str) -> dict[str, float]:
    """One stage, in this process: its greatest anonymous memory in MiB, the median time of a step, and the last loss.

    how : mapped; in_turn, whose `over_in_memory` says how fast steps that read from files are beside those that don't; or NETWORK:NUMBER,
        the denoiser and the number of processes of one thread.
    """
    study, times = Study(root), []
    network, _, processes = how.rpartition(":")
    threads = {"training_threads": 1, "training_processes": int(processes)} if network else {}
    stated = params(steps, network or "small")
    vars(study).update(stated=stated, params=stated, cluster=Cluster(workers=1, **threads))

    def timed(self, step: int):
        _InTurn.from_memory = step % 2 == 1
        start = time.perf_counter()
        numbers = take(self, step)
        times.append(time.perf_counter() - start)
        return numbers

    take = loop._Loop.step
    with (
        anonymous_memory() as seen,
        patch.object(loop._Loop, "step", timed),
        _in_turn() if how == "in_turn" else nullcontext(),
    ):
        run_stage(stage, study)
    loss = json.loads((study.reports(stage) / "metrics.json").read_text(encoding="utf-8")).get("loss_last_100_steps")
    files, memory = (float(np.median(times[first::2])) for first in (0, 1))
    return {"mib": max(seen), "step_s": float(np.median(times)), "over_in_memory": memory / files, "loss": loss}


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
            of = {count: _in_process(root / str(count), stage, options.steps, "mapped") for count in options.tiles}
            in_turn = [_in_process(root / str(few), stage, options.steps, "in_turn") for _ in range(REPEATS)]
            found[stage] = {
                "train_peak_rss_mib": {str(count): result["mib"] for count, result in of.items()},
                "growth": of[many]["mib"] / of[few]["mib"],
                "steps_per_s_over_in_memory": statistics.median(each["over_in_memory"] for each in in_turn),
            }
            steps[stage] = {"step_s": {str(count): result["step_s"] for count, result in of.items()}}
        found["processes"] = {network: _shared(root / str(few), options.steps, network) for network in NETWORKS}
    sizes = {"tiles": list(options.tiles), "tile_px": PX, "steps": options.steps}
    report("training", False, sizes, flat(found), flat(steps), options.json)


def _shared(root: Path, steps: int, network: str) -> dict[str, float]:
    """Two processes beside one, in pairs."""
    pairs = [
        [_in_process(root, "train_denoiser", steps, f"{network}:{count}") for count in (2, 1)] for _ in range(REPEATS)
    ]
    return {
        "two_over_one": statistics.median(one["step_s"] / two["step_s"] for two, one in pairs),
        "loss_difference": max(abs(one["loss"] - two["loss"]) for two, one in pairs),
    }


def _in_process(root: Path, stage: str, steps: int, how: str) -> dict[str, float]:
    shutil.rmtree(root / ".work", ignore_errors=True)
    return in_process("benchmarks.training", "--steps", str(steps), "--one", str(root), stage, how)


if __name__ == "__main__":
    main()
