"""Two learners of masks beside each other: monuseg's nuclei, thirty patients, each held out once in three folds.

`unet` is small and from scratch; `unet-imagenet` is segmentation-models-pytorch's, its encoder EfficientNet-Lite0. Both are trained on real
tiles alone, for the same steps, with the same batches, rate and augmentation. It needs the real data that HISTOLOOM_REAL_DATA names;
with --smoke it draws slides of its own, and its figures mean nothing.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.run import arguments, chip, flat, report
from benchmarks.studies import Study
from benchmarks.uplift import FOLDS, drawn, nuclei
from histoloom.config.arms import Augmentation
from histoloom.learners.learner import Training, learner_of
from histoloom.training.run import TrainingRun
from histoloom.uplift.analysis import paired_difference
from histoloom.uplift.tasks import MaskTask, counted

FIRST, SECOND = "unet", "unet-imagenet"
SEEDS, STEPS, BATCH = 2, 300, 8
AUGMENTED: dict[str, Augmentation] = {"as_they_are": "none", "augmented": "classical"}


class Tiles(NamedTuple):
    """Images and masks of one split, and their patients."""

    images: np.ndarray
    masks: np.ndarray
    groups: np.ndarray


def tiles_of(study: Study, split: str) -> Tiles:
    rows = study.tiles.rows()
    rows = rows[rows["split"] == split]
    return Tiles(study.tiles.read(rows), study.tiles.read(rows, "mask"), rows["split_group"].to_numpy(str))


def predicted(train: Tiles, test: Tiles, seed: int, steps: int, augmentation: Augmentation) -> tuple[dict, dict]:
    """Counted pixels of the test tiles by each network, and the seconds that each took."""
    found, took = {}, {}
    for name in (FIRST, SECOND):
        with tempfile.TemporaryDirectory() as work:
            run = TrainingRun(name, steps, 2e-3, seed, Path(work), steps, warmup_steps=steps // 10, device=chip())
            training = Training(name, "mask", ("nucleus",), run, BATCH, augmentation=augmentation)
            start = time.monotonic()
            masks = learner_of(name, "mask").fit(train.images, train.masks, training).predict(test.images)
            found[name], took[name] = counted(masks, test.masks, 1), time.monotonic() - start
    return found, took


def compared(folds: list[tuple[Tiles, Tiles]], seeds: int, steps: int, augmentation: Augmentation) -> tuple[dict, dict]:
    """Dice by patient of each, the difference with its interval over patients and seeds, and the ratio of times."""
    counts: dict[str, list] = {FIRST: [], SECOND: []}
    seconds: dict[str, list[float]] = {FIRST: [], SECOND: []}
    for seed in range(seeds):
        parts = [
            predicted(train, test, 100 * fold + seed, steps, augmentation) for fold, (train, test) in enumerate(folds)
        ]
        for name in counts:
            counts[name].append(np.concatenate([found[name] for found, _ in parts]))
            seconds[name] += [took[name] for _, took in parts]
    numbers = np.repeat(np.arange(len(folds)), [len(test.images) for _, test in folds])
    task = MaskTask(("nucleus",), np.concatenate([test.groups for _, test in folds]), folds=numbers)
    evidence = {name: np.stack([task.evidence(found) for found in seeds_]) for name, seeds_ in counts.items()}
    change = paired_difference(task, evidence[FIRST], evidence[SECOND], np.random.default_rng(0))
    keys = {f"dice.{name}": float(np.mean([task.measures(c)["dice"] for c in each])) for name, each in counts.items()}
    keys |= {"dice.difference": change["difference"], "dice.interval": change["interval"]}
    ratios = np.divide(seconds[SECOND], seconds[FIRST])
    keys["time_over_unet"] = float(np.median(ratios))
    return keys, {name: float(np.median(each)) for name, each in seconds.items()}


def main() -> None:
    options = arguments(__doc__, tuple(AUGMENTED), work="keep the tiles here")
    seeds, steps, keys, details = SEEDS, 2 if options.smoke else STEPS, {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)).absolute()
        make = partial(drawn, root, "nuclei") if options.smoke else partial(nuclei, root)
        folds = []
        for fold in range(2 if options.smoke else FOLDS):
            study = make(fold, 1.0)
            study.run("tile")
            folds.append((tiles_of(study, "train"), tiles_of(study, "test")))
        for name in options.only:
            keys[name], details[name] = compared(folds, seeds, steps, AUGMENTED[name])
    sizes = {"folds": len(folds), "seeds": seeds, "steps": steps, "batch_size": BATCH}
    sizes["train_tiles"] = [len(train.images) for train, _ in folds]
    report("segmenters", options.smoke, sizes, flat(keys), flat({"seconds": details}), options.json)


if __name__ == "__main__":
    main()
