"""What the models learn and are tested on, a tile's label or its mask, and how their predictions are measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, TypedDict, cast

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from histoloom.data.store import UNKNOWN
from histoloom.learners.linear import expected_calibration_error

COUNTS = ("both", "found", "stated")


class Measures(TypedDict, total=False):
    """What is measured of a model, or of all seeds of an arm on average; the first five of labels, the others of masks."""

    balanced_accuracy: float
    auroc: float | None
    calibration_error: float
    recall: dict[str, float]
    precision: dict[str, float]
    dice: float
    dice_of_worst_group: float
    dice_of_class: dict[str, float]


@dataclass(frozen=True)
class Task(ABC):
    """A task on the test tiles.

    groups : (n,) split groups of the test tiles.
    folds : (n,) of a cross-validation, in which fold each was held out; None without one.
    measure : the primary one of `Measures`. words : its name in a sentence.
    """

    classes: tuple[str, ...]
    groups: np.ndarray
    folds: np.ndarray | None = field(default=None, kw_only=True)
    measure: ClassVar[str]
    words: ClassVar[str]

    @property
    @abstractmethod
    def columns(self) -> tuple[str, ...]:
        """Of a table of predictions."""

    @abstractmethod
    def evidence(self, prediction: np.ndarray) -> np.ndarray:
        """(n, ...) What the score is computed from."""

    @abstractmethod
    def score(self, evidence: np.ndarray, weight: np.ndarray) -> float:
        """The primary measure, the tiles weighted (n,); NaN where the weights leave nothing to measure."""

    @abstractmethod
    def measures(self, prediction: np.ndarray) -> Measures: ...

    def groups_by_class(self) -> dict[str, int]:
        """How many split groups the test tiles of each class are of: of one alone nothing tells how groups differ in it."""
        return {}


@dataclass(frozen=True)
class LabelTask(Task):
    """truth : (n,) class numbers of the test tiles. A prediction is (n, classes) probabilities."""

    truth: np.ndarray
    measure = "balanced_accuracy"
    words = "balanced accuracy"

    @property
    def columns(self) -> tuple[str, ...]:
        return self.classes

    def evidence(self, prediction: np.ndarray) -> np.ndarray:
        """(n,) whether each tile was right."""
        return prediction.argmax(1) == self.truth

    def score(self, evidence: np.ndarray, weight: np.ndarray) -> float:
        """Balanced accuracy: the mean over classes of the weighted fraction of tiles that were right; weight is (n,).

        NaN where a class weighs nothing: over the other classes the mean would answer another question.
        """
        of_class = [self.truth == k for k in np.unique(self.truth)]
        if not all(weight[k].any() for k in of_class):
            return float("nan")
        return float(np.mean([np.average(evidence[k], weights=weight[k]) for k in of_class]))

    def groups_by_class(self) -> dict[str, int]:
        return {self.classes[k]: len(set(self.groups[self.truth == k])) for k in np.unique(self.truth)}

    def measures(self, prediction: np.ndarray) -> Measures:
        """Balanced accuracy, AUROC (one class against the rest, averaged), recall and precision by class, and calibration error.

        Classes that the test tiles lack don't count. A class that is never predicted has precision 0.
        """
        truth, present = self.truth, np.unique(self.truth)
        recall = {self.classes[k]: float((prediction[truth == k].argmax(1) == k).mean()) for k in present}
        said = prediction.argmax(1)
        precision = {
            self.classes[k]: float((truth[said == k] == k).mean()) if (said == k).any() else 0.0 for k in present
        }
        auroc = [roc_auc_score(truth == k, prediction[:, k]) for k in present if 0 < (truth == k).sum() < len(truth)]
        return {
            "balanced_accuracy": float(np.mean(list(recall.values()))),
            "auroc": float(np.mean(auroc)) if auroc else None,
            "calibration_error": expected_calibration_error(prediction, truth),
            "recall": recall,
            "precision": precision,
        }


@dataclass(frozen=True)
class MaskTask(Task):
    """A prediction is `counted`'s (n, 3 x classes) pixels. A group's Dice is over the classes that it has."""

    measure = "dice"
    words = "Dice"

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(f"{name}.{count}" for name in self.classes for count in COUNTS)

    def evidence(self, prediction: np.ndarray) -> np.ndarray:
        """(n, classes, 3): pixels of each class in both masks, found, and stated."""
        return np.asarray(prediction, float).reshape(len(prediction), len(self.classes), 3)

    def score(self, evidence: np.ndarray, weight: np.ndarray) -> float:
        """Mean over split groups (patients) of their Dice; a group counts as its tiles weigh, (n,)."""
        dice, counts = self._of_groups(evidence, weight), self._members @ weight / self._members.sum(1)
        known = np.isfinite(dice)
        return float(np.average(dice[known], weights=counts[known])) if counts[known].sum() else float("nan")

    def measures(self, prediction: np.ndarray) -> Measures:
        """Dice by patient (mean, and the worst), and of each class over all test tiles; classes that they lack don't count."""
        evidence = self.evidence(prediction)
        dice = self._of_groups(evidence, np.ones(len(evidence)))
        both, found, stated = evidence.sum(0).T
        each = {c: 2 * b / (f + s) for c, b, f, s in zip(self.classes, both, found, stated) if s}
        return {
            "dice": float(np.nanmean(dice)),
            "dice_of_worst_group": float(np.nanmin(dice)),
            "dice_of_class": {name: float(value) for name, value in each.items()},
        }

    @cached_property
    def _members(self) -> np.ndarray:
        """(groups, n), 1 where a tile is of a group."""
        return (np.unique(self.groups)[:, None] == self.groups).astype(float)

    def _of_groups(self, evidence: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(groups,) Dice over all pixels of a group, the mean over the classes that its stated masks have; NaN for none."""
        both, found, stated = np.moveaxis(np.tensordot(self._members * weight, evidence, 1), 2, 0)
        each = np.divide(2 * both, found + stated, out=np.zeros_like(both), where=stated > 0)
        count = (stated > 0).sum(1)
        return np.divide(each.sum(1), count, out=np.full(len(each), np.nan), where=count > 0)


def counted(found: np.ndarray, stated: np.ndarray, classes: int) -> np.ndarray:
    """Masks (n, h, w) of class ids to pixels (n, 3 x classes): of each class in both, found, and stated; unknown ones left out."""
    columns, known = [], stated != UNKNOWN
    for number in range(1, classes + 1):
        ours, theirs = (found == number) & known, stated == number
        columns += [part.sum((1, 2)) for part in (ours & theirs, ours, theirs)]
    return np.stack(columns, 1)


def averaged(each: list[Measures]) -> Measures:
    """The mean over seeds of what `measures` gave for each; None where none is known."""
    return cast(Measures, {name: _mean([cast(dict, m)[name] for m in each]) for name in each[0]})


def _mean(values: list) -> float | dict[str, float] | None:
    if isinstance(values[0], dict):
        return {name: float(np.mean([v[name] for v in values])) for name in values[0]}
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def label_task(test: pd.DataFrame, classes: tuple[str, ...], folds: np.ndarray | None = None) -> LabelTask:
    truth = test["label"].map({name: n for n, name in enumerate(classes)}).to_numpy(int)
    return LabelTask(classes, test["split_group"].to_numpy(str), truth, folds=folds)


def mask_task(test: pd.DataFrame, classes: tuple[str, ...], folds: np.ndarray | None = None) -> MaskTask:
    return MaskTask(classes, test["split_group"].to_numpy(str), folds=folds)
