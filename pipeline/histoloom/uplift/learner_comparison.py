"""Two learners of masks beside each other, by one protocol: the same tiles, labels, batches and steps, Dice by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

import histoloom
from histoloom.cluster import one_thread
from histoloom.config.arms import Augmentation
from histoloom.config.learners import LearnerConfig
from histoloom.data.commit import commit_part, digest, hash_tree, sha256_file
from histoloom.data.store import TileStore
from histoloom.learners.borders import border_measures
from histoloom.learners.certainty import Calibration, calibration_of
from histoloom.learners.learner import Training, learner_of
from histoloom.registry import module_of
from histoloom.training.run import TrainingRun
from histoloom.uplift.analysis import Difference, paired_difference
from histoloom.uplift.tasks import MaskTask, counted

_FILE, _SURE = "masks.npz", ".sure"
_LEARNING = ("learners", "training", "sampling", "process", "targets", "backbones")


class MaskedTiles(NamedTuple):
    """Tiles (n, h, w, 3) and their class ids (n, h, w), both uint8, and the split group of each, (n,)."""

    images: np.ndarray
    masks: np.ndarray
    groups: np.ndarray

    @classmethod
    def of(cls, store: TileStore, rows: pd.DataFrame) -> MaskedTiles:
        """Those of a store's rows; made tiles have no group."""
        return cls(store.read(rows), store.read(rows, "mask"), rows["split_group"].fillna("").to_numpy(str))

    def joined(self, others: MaskedTiles) -> MaskedTiles:
        """These, and then others."""
        return MaskedTiles(*(np.concatenate(pair) for pair in zip(self, others)))


def mean_dice(task: MaskTask, counts: np.ndarray) -> float:
    """Dice by patient of what `counted` found (seeds, n, 3 x classes), the mean over patients and seeds."""
    return float(np.mean([task.measures(of_seed)["dice"] for of_seed in counts]))


def dice_difference(task: MaskTask, before: np.ndarray, after: np.ndarray) -> Difference:
    """Dice of the second counts (seeds, n, 3 x classes) less that of the first, paired by seed, on the same tiles."""
    first, second = (np.stack([task.evidence(of_seed) for of_seed in counts]) for counts in (before, after))
    return paired_difference(task, first, second, np.random.default_rng(0))


class Fold(NamedTuple):
    """Tiles to learn from, and by name those to be tested on.

    models : the study's, where a learner reads them. unlabelled : (n, h, w, 3) tiles of train whose masks are hidden.
    first : how many of train, the first ones, are learnt from in the first half of the steps, and the others in the second; 0 for all together.
    """

    train: MaskedTiles
    tests: Mapping[str, MaskedTiles]
    models: Path | None = None
    unlabelled: np.ndarray | None = None
    first: int = 0


def _code_sha256(learner: LearnerConfig) -> str:
    """Of the folders that learners are made of, and of what this one is told to load from outside."""
    places = [module_of(kind, name) for kind, names in learner.loads.items() for name in names]
    own = [Path(place) for place in (module_of("learner", learner.name), *places) if place.endswith(".py")]
    return digest([_packaged_sha256(), *(sha256_file(path) for path in own)])


@cache
def _packaged_sha256() -> str:
    root = Path(histoloom.__file__).parent
    return digest([sha256_file(path) for folder in _LEARNING for path in sorted((root / folder).rglob("*.py"))])


@dataclass(frozen=True)
class LearnerComparison:
    """What every learner is asked to do. Each is trained at its own rate.

    work : what was predicted is kept here, and is taken up again by the same code.
    """

    classes: tuple[str, ...]
    folds: Sequence[Fold]
    work: Path
    steps: int = 300
    batch_size: int = 8
    seeds: int = 2
    augmentation: Augmentation = "classical"
    device: str = "cpu"

    def masks(self, learner: LearnerConfig, test: str) -> list[np.ndarray]:
        """What each seed's models say of the test tiles of all folds, (n, h, w) for a seed."""
        return self._of_seeds(learner, test)

    def certainty(self, learner: LearnerConfig, test: str) -> list[np.ndarray]:
        """How sure each seed's models are of each pixel, (n, h, w) from 0 to 1."""
        return [sure / 255 for sure in self._of_seeds(learner, test + _SURE)]

    def calibration(self, learner: LearnerConfig, test: str) -> Calibration:
        """Whether the learner is right as often as it is sure, over all pixels and seeds."""
        sure = np.stack(self.certainty(learner, test))
        right = np.stack(self.masks(learner, test)) == self.truth(test)
        return calibration_of(sure.ravel(), right.ravel())

    def borders(self, learner: LearnerConfig, test: str) -> tuple[float, float]:
        """F1 of borders and the 95th percentile of their distance in px, means over tiles and seeds (`learners.borders`)."""
        each = [border_measures(masks, self.truth(test)) for masks in self.masks(learner, test)]
        f1, distance = (np.nanmean([measured[place] for measured in each]) for place in (0, 1))
        return float(f1), float(distance)

    def _of_seeds(self, learner: LearnerConfig, what: str) -> list[np.ndarray]:
        return [
            np.concatenate([self._trial(learner, number, seed)[what] for number in range(len(self.folds))])
            for seed in range(self.seeds)
        ]

    def truth(self, test: str) -> np.ndarray:
        return np.concatenate([fold.tests[test].masks for fold in self.folds])

    def task(self, test: str) -> MaskTask:
        tests = [fold.tests[test] for fold in self.folds]
        numbers = np.repeat(np.arange(len(tests)), [len(tiles.images) for tiles in tests])
        folds = numbers if len(tests) > 1 else None
        return MaskTask(self.classes, np.concatenate([tiles.groups for tiles in tests]), folds=folds)

    def counts(self, learner: LearnerConfig, test: str) -> np.ndarray:
        """(seeds, n, 3 x classes), as `counted` says."""
        truth, classes = self.truth(test), len(self.classes)
        return np.stack([counted(masks, truth, classes) for masks in self.masks(learner, test)])

    def dice(self, learner: LearnerConfig, test: str) -> float:
        """Dice by patient, the mean over patients and seeds."""
        return mean_dice(self.task(test), self.counts(learner, test))

    def difference(self, baseline: LearnerConfig, learner: LearnerConfig, test: str) -> Difference:
        """Dice of the learner less that of the baseline, paired by seed, on the same tiles."""
        return dice_difference(self.task(test), self.counts(baseline, test), self.counts(learner, test))

    def _trial(self, learner: LearnerConfig, number: int, seed: int) -> dict[str, np.ndarray]:
        told = learner.model_dump(mode="json")
        asked = [
            told,
            self.steps,
            self.batch_size,
            self.augmentation,
            self.classes,
            _code_sha256(learner),
            self._tiles_sha256[number],
        ]
        name = f"{learner.name.replace(':', '_')}_fold-{number}_seed-{seed}@{digest(asked)[:12]}"
        commit_part(self.work, name, lambda folder: self._predict(learner, number, seed, name, folder))
        with np.load(self.work / name / _FILE) as found:
            return dict(found)

    @cached_property
    def _tiles_sha256(self) -> list[str]:
        """Of what each fold holds."""
        found = []
        for fold in self.folds:
            shown = [*fold.train[:2], *(array for tiles in fold.tests.values() for array in tiles[:2])]
            given = [fold.first] if fold.models is None else [fold.first, hash_tree(fold.models)]
            arrays = [*shown, *([] if fold.unlabelled is None else [fold.unlabelled])]
            found.append(digest([*given, *(hashlib.sha256(a.tobytes()).hexdigest() for a in arrays)]))
        return found

    def _predict(self, learner: LearnerConfig, number: int, seed: int, name: str, folder: Path) -> dict[str, int]:
        kind, fold = learner_of(learner.name, "mask"), self.folds[number]
        checkpoints, every = self.work / "checkpoints" / name, max(1, self.steps // 4)
        run = TrainingRun(
            learner.name, self.steps, kind.rate(learner), 100 * number + seed, checkpoints, every, warmup_steps=self.steps // 10,
            device=self.device,
        )  # fmt: skip
        training = Training(
            learner.name, "mask", self.classes, run, self.batch_size, augmentation=self.augmentation, told=learner, models=fold.models,
            unlabelled=fold.unlabelled, first=fold.first,
        )  # fmt: skip
        with one_thread():
            fitted = kind.fit(fold.train.images, fold.train.masks, training)
            found = {}
            for test, tiles in fold.tests.items():
                found[test], sure = fitted.sure_masks(tiles.images)
                found[test + _SURE] = (sure * 255).round().astype(np.uint8)
        np.savez_compressed(folder / _FILE, **found)  # type: ignore[arg-type]
        return {"tiles": len(fold.train.images)}
