"""The learner of masks beside the U-Net that it replaced: monuseg's nuclei, thirty patients, each held out once in three folds.

Both are trained on real tiles alone, for the same steps, with the same batches, rate and augmentation, by the same loop and loss.
The reference is a three-level U-Net of width 16 with group norms, from scratch. It needs the real data that HISTOLOOM_REAL_DATA
names; with --smoke it draws slides of its own, and its figures mean nothing.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import nn

from benchmarks.judges import UNet
from benchmarks.run import arguments, chip, flat, report
from benchmarks.studies import Study
from benchmarks.uplift import FOLDS, drawn, nuclei
from histoloom.learners.learner import Training, learner_of
from histoloom.learners.networks import class_ids, fit_masks
from histoloom.learners.networks import drawn as drawn_network
from histoloom.training.loop import TrainingRun
from histoloom.uplift.analysis import paired_difference
from histoloom.uplift.tasks import MaskTask, counted

NAME = "unet"
SEEDS, STEPS, BATCH = 2, 300, 8
AUGMENTED = {"as_they_are": False, "augmented": True}


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    pairs = pairwise((channels_in, channels_out, channels_out))
    return nn.Sequential(*(m for i, o in pairs for m in (nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(4, o), nn.SiLU())))


class Tiles(NamedTuple):
    """Images and masks of one split, and their patients."""

    images: np.ndarray
    masks: np.ndarray
    groups: np.ndarray


def tiles_of(study: Study, split: str) -> Tiles:
    rows = study.tiles.rows()
    rows = rows[rows["split"] == split]
    return Tiles(study.tiles.read(rows), study.tiles.read(rows, "mask"), rows["split_group"].to_numpy(str))


def reference(train: Tiles, test: np.ndarray, training: Training) -> np.ndarray:
    """Masks of test tiles by the reference."""
    model = drawn_network(lambda: UNet(len(training.classes) + 1, 16, _block), training.run)
    fit_masks(model, train.images, train.masks, training)
    return class_ids(model, test, training.run.device)


def learner(train: Tiles, test: np.ndarray, training: Training) -> np.ndarray:
    return learner_of(NAME, "mask").fit(train.images, train.masks, training).predict(test)


def predicted(train: Tiles, test: Tiles, seed: int, steps: int, augment: bool) -> tuple[dict, dict]:
    """Counted pixels of the test tiles by each network, and the seconds that each took."""
    found, took = {}, {}
    for name, how in {"reference": reference, NAME: learner}.items():
        with tempfile.TemporaryDirectory() as work:
            run = TrainingRun(
                name, steps, 2e-3, seed, Path(work), steps, warmup_steps=steps // 10, device=chip()
            )  # fmt: skip
            training = Training(NAME, "mask", ("nucleus",), run, BATCH, augment=augment)
            start = time.monotonic()
            found[name] = counted(how(train, test.images, training), test.masks, 1)
            took[name] = time.monotonic() - start
    return found, took


def compared(folds: list[tuple[Tiles, Tiles]], seeds: int, steps: int, augment: bool) -> tuple[dict, dict]:
    """Dice by patient of each, the difference with its interval over patients and seeds, and the ratio of times."""
    counts: dict[str, list] = {"reference": [], NAME: []}
    seconds: dict[str, list[float]] = {"reference": [], NAME: []}
    for seed in range(seeds):
        parts = [predicted(train, test, 100 * fold + seed, steps, augment) for fold, (train, test) in enumerate(folds)]
        for name in counts:
            counts[name].append(np.concatenate([found[name] for found, _ in parts]))
            seconds[name] += [took[name] for _, took in parts]
    numbers = np.repeat(np.arange(len(folds)), [len(test.images) for _, test in folds])
    task = MaskTask(("nucleus",), np.concatenate([test.groups for _, test in folds]), folds=numbers)
    evidence = {name: np.stack([task.evidence(found) for found in seeds_]) for name, seeds_ in counts.items()}
    change = paired_difference(task, evidence["reference"], evidence[NAME], np.random.default_rng(0))
    keys = {f"dice.{name}": float(np.mean([task.measures(c)["dice"] for c in each])) for name, each in counts.items()}
    keys |= {"dice.difference": change["difference"], "dice.interval": change["interval"]}
    ratios = np.divide(seconds[NAME], seconds["reference"])
    keys["time_over_reference"] = float(np.median(ratios))
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
