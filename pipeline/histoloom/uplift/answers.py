"""What is asked of the test tiles, and how the answers are measured: their label, or their mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from histoloom.learners.linear import expected_calibration_error

COUNTS = ("both", "found", "stated")


@dataclass(frozen=True)
class LabelAnswers:
    """truth : (n,) class numbers of the test tiles. A prediction is (n, classes) probabilities."""

    classes: tuple[str, ...]
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
        """Balanced accuracy: the mean over classes of the weighted share of tiles that were right; weight is (n,).

        NaN where a class weighs nothing: over the other classes the mean would answer another question.
        """
        of_class = [self.truth == k for k in np.unique(self.truth)]
        if not all(weight[k].any() for k in of_class):
            return float("nan")
        return float(np.mean([np.average(evidence[k], weights=weight[k]) for k in of_class]))

    def groups_by_class(self, groups: np.ndarray) -> dict[str, int]:
        """How many split groups (n,) the test tiles of each class are of: of one alone nothing tells how groups differ in it."""
        return {self.classes[k]: len(set(groups[self.truth == k])) for k in np.unique(self.truth)}

    def measures(self, prediction: np.ndarray) -> dict:
        """Balanced accuracy, AUROC (one class against the rest, averaged), recall by class and calibration error.

        Classes that the test tiles lack don't count.
        """
        truth, present = self.truth, np.unique(self.truth)
        recall = {self.classes[k]: float((prediction[truth == k].argmax(1) == k).mean()) for k in present}
        auroc = [roc_auc_score(truth == k, prediction[:, k]) for k in present if 0 < (truth == k).sum() < len(truth)]
        return {
            "balanced_accuracy": float(np.mean(list(recall.values()))),
            "auroc": float(np.mean(auroc)) if auroc else None,
            "calibration_error": expected_calibration_error(prediction, truth),
            "recall": recall,
        }


@dataclass(frozen=True)
class MaskAnswers:
    """groups : (n,) split groups of the test tiles. A prediction is `counted`'s (n, 3 x classes) pixels."""

    classes: tuple[str, ...]
    groups: np.ndarray
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

    def groups_by_class(self, groups: np.ndarray) -> dict[str, int]:
        """None: a group's Dice is over the classes that it has."""
        return {}

    def measures(self, prediction: np.ndarray) -> dict:
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
    """Masks (n, h, w) of class ids to pixels (n, 3 x classes): of each class in both, found, and stated."""
    columns = []
    for number in range(1, classes + 1):
        ours, theirs = found == number, stated == number
        columns += [part.sum((1, 2)) for part in (ours & theirs, ours, theirs)]
    return np.stack(columns, 1)


Answers = LabelAnswers | MaskAnswers


def averaged(each: list[dict], measure: str) -> dict:
    """The mean over seeds of what `measures` gave for each, and the spread of the first of them."""

    def mean(of: Callable[[dict], object]):
        values = [of(m) for m in each]
        if isinstance(values[0], dict):
            return {name: mean(lambda m, name=name: of(m)[name]) for name in values[0]}
        known = [v for v in values if v is not None]
        return float(np.mean(known)) if known else None

    out = {name: mean(lambda m, name=name: m[name]) for name in each[0]}
    return out | {f"{measure}_std_of_seeds": float(np.std([m[measure] for m in each]))}


def label_answers(test: pd.DataFrame, classes: tuple[str, ...]) -> LabelAnswers:
    return LabelAnswers(classes, test["label"].map({name: n for n, name in enumerate(classes)}).to_numpy(int))


def mask_answers(test: pd.DataFrame, classes: tuple[str, ...]) -> MaskAnswers:
    return MaskAnswers(classes, test["split_group"].to_numpy(str))
