"""Two learners of masks beside each other, by one protocol: the same tiles, labels, batches and steps, Dice by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from histoloom.cluster import one_thread
from histoloom.config.learners import LearnerConfig
from histoloom.data.commit import commit_part, digest, hash_tree
from histoloom.learners.learner import Training, learner_of
from histoloom.training.run import TrainingRun
from histoloom.uplift.analysis import Difference, paired_difference
from histoloom.uplift.tasks import MaskTask, counted

_FILE = "masks.npz"


class MaskedTiles(NamedTuple):
    """Tiles (n, h, w, 3) and their class ids (n, h, w), both uint8, and the split group of each, (n,)."""

    images: np.ndarray
    masks: np.ndarray
    groups: np.ndarray


class Fold(NamedTuple):
    """Tiles to learn from, and by name those to be tested on.

    models : the study's, where a learner reads them. unlabelled : (n, h, w, 3) tiles of train whose masks are hidden.
    """

    train: MaskedTiles
    tests: Mapping[str, MaskedTiles]
    models: Path | None = None
    unlabelled: np.ndarray | None = None


@dataclass(frozen=True)
class LearnerComparison:
    """What every learner is asked to do. Each is trained at its own rate.

    work : what was predicted is kept here, and is taken up again.
    code : identity of the code that learns. What other code predicted is not taken up.
    """

    classes: tuple[str, ...]
    folds: Sequence[Fold]
    work: Path
    steps: int = 300
    batch_size: int = 8
    seeds: int = 2
    augment: bool = True
    device: str = "cpu"
    code: str = field(default="", kw_only=True)

    def masks(self, learner: LearnerConfig, test: str) -> list[np.ndarray]:
        """What each seed's models say of the test tiles of all folds, (n, h, w) for a seed."""
        return [
            np.concatenate([self._trial(learner, number, seed)[test] for number in range(len(self.folds))])
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
        task = self.task(test)
        return float(np.mean([task.measures(counts)["dice"] for counts in self.counts(learner, test)]))

    def difference(self, baseline: LearnerConfig, learner: LearnerConfig, test: str) -> Difference:
        """Dice of the learner less that of the baseline, paired by seed, on the same tiles."""
        task = self.task(test)
        first, second = (
            np.stack([task.evidence(counts) for counts in self.counts(one, test)]) for one in (baseline, learner)
        )
        return paired_difference(task, first, second, np.random.default_rng(0))

    def _trial(self, learner: LearnerConfig, number: int, seed: int) -> dict[str, np.ndarray]:
        told = learner.model_dump(mode="json")
        asked = [told, self.steps, self.batch_size, self.augment, self.classes, self.code, self._tiles_sha256[number]]
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
            given = [] if fold.models is None else [hash_tree(fold.models)]
            arrays = [*shown, *([] if fold.unlabelled is None else [fold.unlabelled])]
            found.append(digest([*given, *(hashlib.sha256(a.tobytes()).hexdigest() for a in arrays)]))
        return found

    def _predict(self, learner: LearnerConfig, number: int, seed: int, name: str, folder: Path) -> dict[str, int]:
        kind, fold = learner_of(learner.name, "mask"), self.folds[number]
        checkpoints, every = self.work / "checkpoints" / name, max(1, self.steps // 4)
        run = TrainingRun(
            learner.name, self.steps, kind.learning_rate, 100 * number + seed, checkpoints, every, warmup_steps=self.steps // 10,
            device=self.device,
        )  # fmt: skip
        training = Training(
            learner.name, "mask", self.classes, run, self.batch_size, augment=self.augment, told=learner, models=fold.models,
            unlabelled=fold.unlabelled,
        )  # fmt: skip
        with one_thread():
            fitted = kind.fit(fold.train.images, fold.train.masks, training)
            found = {test: fitted.predict(tiles.images) for test, tiles in fold.tests.items()}
        np.savez_compressed(folder / _FILE, **found)  # type: ignore[arg-type]
        return {"tiles": len(fold.train.images)}
