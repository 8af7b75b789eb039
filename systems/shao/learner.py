"""Two heads on one frozen denoiser that teach each other on tiles without masks.

Both learn few labelled tiles first, from different weights and in different order. Each then marks the unlabelled tiles, as far as it is
sure. The other learns these marks beside the labelled tiles, and what is unsure teaches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from histoloom.config.learners import DenoiserLearner, OwnLearner
from histoloom.data.store import UNKNOWN
from histoloom.errors import HistoloomError
from histoloom.learners.denoiser import DenoiserFeatures
from histoloom.learners.learner import Learner, Told, Training

_CONFIDENCE = 0.9


@dataclass(frozen=True)
class Mutual(Learner):
    """The surer of the two heads says what a pixel is."""

    heads: tuple[DenoiserFeatures, DenoiserFeatures]
    tasks = ("mask",)
    learning_rate = 2e-3

    @classmethod
    def reads(cls, told: Told) -> tuple[str, ...]:
        return DenoiserFeatures.reads(_heads_told(told)[0])

    @classmethod
    def saw(cls, models: Path, told: Told) -> dict:
        return DenoiserFeatures.saw(models, _heads_told(told)[0])

    @classmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        told, confidence = _heads_told(training.told)
        first = _taught([(images, truth)] * 2, replace(training, told=told), "first")
        if training.unlabelled is None or not len(training.unlabelled):
            return cls(first)
        lessons = []
        for teacher in reversed(first):
            marks, sure = teacher.sure_masks(training.unlabelled)
            again = np.resize(
                np.arange(len(images)), max(len(images), len(marks))
            )  # as many labelled tiles as marked ones
            marked = np.where(sure >= confidence, marks, UNKNOWN).astype(np.uint8)
            lessons.append(
                (np.concatenate([images[again], training.unlabelled]), np.concatenate([truth[again], marked]))
            )
        return cls(_taught(lessons, replace(training, told=told), "second"))

    def sure_masks(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (one, sure), (two, also_sure) = (head.sure_masks(images) for head in self.heads)
        return np.where(sure >= also_sure, one, two).astype(np.uint8), np.maximum(sure, also_sure)

    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        return self.sure_masks(images)[0]

    def save(self, folder: Path) -> None:
        for number, head in enumerate(self.heads):
            (folder / str(number)).mkdir()
            head.save(folder / str(number))

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        first, second = (DenoiserFeatures.load(folder / str(number), device) for number in range(2))
        return cls((first, second))


def _taught(
    lessons: list[tuple[np.ndarray, np.ndarray]], training: Training, what: str
) -> tuple[DenoiserFeatures, DenoiserFeatures]:
    heads = []
    for number, (images, truth) in enumerate(lessons):
        run = replace(
            training.run, seed=training.run.seed + 1000 * number, checkpoints=training.run.checkpoints / f"{what}-{number}",
            history=[], measured=[],
        )  # fmt: skip
        heads.append(DenoiserFeatures.fit(images, truth, replace(training, run=run)))
    return heads[0], heads[1]


def _heads_told(told: Told) -> tuple[DenoiserLearner, float]:
    """What each head is told, and how sure it must be of what it teaches."""
    given = dict(told.told) if isinstance(told, OwnLearner) else {}
    confidence = given.pop("confidence", _CONFIDENCE)
    if not isinstance(confidence, float) or not 0 < confidence < 1:
        raise HistoloomError(f"uplift.learner.confidence is {confidence}: it must lie between 0 and 1.")
    return DenoiserLearner(**given), confidence
