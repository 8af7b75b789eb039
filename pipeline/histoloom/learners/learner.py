"""What is fitted to tiles and predicts on tiles, whatever network or command it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch

from histoloom.config.arms import Augmentation
from histoloom.config.learners import LearnerConfig, LearnerTask
from histoloom.errors import HistoloomError
from histoloom.registry import registered
from histoloom.training.run import TrainingRun, epoch_order, epoch_slice

_BATCH = 64
Told = LearnerConfig | None
"""What a learner is told; None for its defaults."""


@dataclass(frozen=True)
class Training:
    """What a learner is asked to learn, and how.

    learner : its name, as params state it.
    classes : names of the labels, or of the masks' classes without the background.
    run : steps, rate, seed, device, and the folder that it may work in.
    image_px : side in px to which tiles are resized to learn labels; masks stay as they are.
    augmentation : of the tiles, as `augmented` says; with strong, labelled ones are mixed too.
    told : what the learner is told.
    command : the user's own, where the learner is one.
    first : how many of the tiles, the first ones, are learnt from in the first half of the steps, and the others in the second; 0 for all
        together.
    extra : (n,) bool, which tiles are synthetic or retrieved; None for none. extra_share : the fraction of batches that they fill. Of labels
        it is the same in every class that has both kinds, so that nobody learns a class from how they look.
    models : the study's models, of which a learner may use the denoiser.
    start : file of weights that the network begins from, as `pretrain` wrote it; None for its own.
    unlabelled : (n, h, w, 3) uint8, train tiles without truth, for a learner that learns from them too; None for none.
    """

    learner: str
    task: LearnerTask
    classes: tuple[str, ...]
    run: TrainingRun
    batch_size: int
    image_px: int = 96
    augmentation: Augmentation = field(default="classical", kw_only=True)
    first: int = field(default=0, kw_only=True)
    told: Told = field(default=None, kw_only=True)
    command: str | None = field(default=None, kw_only=True)
    models: Path | None = field(default=None, kw_only=True)
    unlabelled: np.ndarray | None = field(default=None, kw_only=True)
    start: Path | None = field(default=None, kw_only=True)
    extra: np.ndarray | None = field(default=None, kw_only=True)
    extra_share: float = field(default=0.0, kw_only=True)

    def turn(self, step: int, count: int) -> range:
        """Which of `count` tiles are learnt from at a step."""
        if not 0 < self.first < count:
            return range(count)
        return range(self.first) if step < self.run.steps // 2 else range(self.first, count)

    def batch(self, step: int, count: int) -> torch.Tensor:
        """The tiles of a step's batch: each of those whose turn it is, before any comes again. Where both kinds of tiles have their turn, the
        synthetic or retrieved ones fill this share of all batches together, however few they are."""
        turn, seed = self.turn(step, count), self.run.seed
        extra = np.zeros(count, bool) if self.extra is None else self.extra
        kinds = [turn.start + np.flatnonzero(extra[turn.start : turn.stop] == kind) for kind in (False, True)]
        if not all(map(len, kinds)):
            return turn.start + epoch_order(seed + turn.start, len(turn), self.batch_size, step)
        drawn = [int(s * self.batch_size * self.extra_share) for s in (step, step + 1)]
        places = [range(*(s * self.batch_size - d for s, d in zip((step, step + 1), drawn))), range(*drawn)]
        return torch.cat(
            [torch.from_numpy(kind)[epoch_slice(seed, len(kind), place)] for kind, place in zip(kinds, places)]
        )


class Learner(ABC):
    """One learner, fitted.

    tasks : what it can learn: a tile's label, its mask, or both.
    learning_rate : what it is trained at where params state none.
    predicts_once : whether `predict` must get all tiles in one call; others get some at a time.
    """

    tasks: ClassVar[tuple[LearnerTask, ...]]
    learning_rate: ClassVar[float]
    predicts_once: ClassVar[bool] = False

    @classmethod
    def rate(cls, told: Told) -> float:
        """The learning rate where params state none."""
        return cls.learning_rate

    @classmethod
    def reads(cls, told: Told) -> tuple[str, ...]:
        """Places of the study that it reads beside the tiles, of those that the stage may read."""
        return ()

    @classmethod
    @abstractmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        """Fit to tiles (n, h, w, 3) uint8.

        Parameters
        ----------
        images : may be mapped from a file; so may masks. Index them batch by batch: only these rows are read into memory.
        truth : class numbers (n,) of a label's task; class ids (n, h, w) uint8 of a mask's, 0 for background.

        Raises
        ------
        HistoloomError
            when it can't be made, or can't learn these tiles.
        """

    @abstractmethod
    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        """Of tiles (n, h, w, 3) uint8: probabilities (n, classes), or class ids (n, h, w) uint8.

        Parameters
        ----------
        ids : the tiles' names, for a learner that hands them on; unstated, they are numbered.
        """

    def chances(self, images: np.ndarray) -> np.ndarray:
        """Of tiles (n, h, w, 3) uint8 each pixel's probability of background and of each class, (n, classes + 1, h, w) float32.

        Raises
        ------
        HistoloomError
            of a learner that can't tell.
        """
        raise HistoloomError(f"A {type(self).__name__} can't say how sure its masks are.")

    @property
    def tells_certainty(self) -> bool:
        """Whether it can say how sure its masks are."""
        own = type(self)
        return own.chances is not Learner.chances or own.sure_masks is not Learner.sure_masks

    def sure_masks(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of tiles (n, h, w, 3) uint8: class ids (n, h, w) uint8, and how sure each is, (n, h, w) float32 from 0 to 1."""
        parts = [self.chances(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
        ids, sure = np.empty(images.shape[:3], np.uint8), np.empty(images.shape[:3], np.float32)
        for number, part in enumerate(parts):
            here = np.s_[number * _BATCH : (number + 1) * _BATCH]
            ids[here], sure[here] = part.argmax(1), part.max(1)
        return ids, sure

    @classmethod
    def saw(cls, models: Path, told: Told) -> dict | None:
        """The lineage record of what it saw before it is fitted; None where that is no patient's tissue.

        Parameters
        ----------
        models : the study's.
        """
        return None

    def save(self, folder: Path) -> None:
        """Write what `load` reads.

        Raises
        ------
        HistoloomError
            for a learner that is not kept.
        """
        raise HistoloomError(f"A {type(self).__name__} can't be kept, so a filter can't look with it.")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """What `save` wrote."""
        raise HistoloomError(f"A {cls.__name__} can't be kept, so a filter can't look with it.")


def learner_of(name: str, task: LearnerTask) -> type[Learner]:
    """The learner that params name.

    Raises
    ------
    HistoloomError
        when it doesn't learn this task.
    """
    kind: type[Learner] = registered("learner", name)
    if task not in kind.tasks:
        raise HistoloomError(
            f"The learner '{name}' learns {' and '.join(kind.tasks)}, and the task is {task}. "
            "Leave uplift.learner out, or name another (docs/how-to/see-whether-it-helps.md)."
        )
    return kind
