"""From predictions to a verdict: each arm's measures, paired differences between arms, and what may be said."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypedDict, cast

import numpy as np
from scipy.special import stdtrit

from histoloom.config.arms import Arm
from histoloom.uplift.tasks import Measures, Task, averaged

FEW_GROUPS = 10
_THIN = 3
_ROUNDS = 2000
ArmKey = tuple[str, float]
"""An arm and its ratio."""


class Difference(TypedDict, total=False):
    """The score of an arm less that of another.

    interval : of 95 %, NaN where nothing can be said.
    interval_of_all : so wide that 95 times of 100 those of all comparisons hold the truth.
    covers : what the intervals are over.
    """

    difference: float
    interval: list[float]
    interval_of_all: list[float]
    covers: str


class Compared(Difference, total=False):
    """arm, ratio : where pairs of arms are compared. against : the other arm."""

    arm: str
    ratio: float
    against: str
    verdict: str


class ArmMeasures(Compared, Measures, total=False):
    """Measures of an arm, averaged over its seeds, and its difference from the first arm.

    trained_on : how many tiles of each source.
    """

    seeds: int
    balanced_accuracy_std_of_seeds: float
    dice_std_of_seeds: float
    trained_on: dict[str, int]


class Analysis(TypedDict, total=False):
    """few_groups : whether the test tiles are of too few split groups to say anything of others. thin_classes : class to its split groups among the test tiles, where they are few.
    filtering : arms with filtered tiles over the same arms with as many unfiltered ones. gain : arms with strong augmentation and synthetic
        tiles over the best arm with strong augmentation alone.
    """

    arms: list[ArmMeasures]
    comparisons: int
    test_tiles: int
    test_groups: int
    few_groups: bool
    primary_measure: str
    thin_classes: dict[str, int]
    filtering: list[Compared]
    gain: list[Compared]


def paired_difference(
    task: Task, first: np.ndarray, second: np.ndarray, rng: np.random.Generator, comparisons: int = 1
) -> Difference:
    """The second arm's score less that of the first, with a 95 % interval, and one for `comparisons` together (Dunn 1961).

    The variance is that of the units, by bootstrap of what the seeds have on average, and that of the seeds, over their
    number. The units are the split groups where there are at least ten, else the tiles. The interval is Student's, with the
    degrees of freedom of such a sum (Satterthwaite 1946), so that few seeds that differ much make it wide.

    Parameters
    ----------
    first, second : (seeds, n, ...) each seed's evidence of each test tile. Seeds are paired; models of different folds have
        no seed in common.
    """
    seeds, n = len(first), len(task.groups)

    def differences(weight: np.ndarray, fold: np.ndarray | None = None) -> np.ndarray:
        """(seeds,) Each seed's; of a fold, each seed's there and what all have on average elsewhere."""
        arms = (first, second) if fold is None else (_varied(first, fold), _varied(second, fold))
        return np.array([task.score(b, weight) - task.score(a, weight) for a, b in zip(*arms)])

    names, which = np.unique(task.groups, return_inverse=True)
    by_group = len(names) >= FEW_GROUPS
    units = len(names) if by_group else n
    drawn = []
    for _ in range(_ROUNDS):
        weight = np.bincount(rng.integers(0, units, units), minlength=units).astype(float)
        drawn.append(differences(weight[which] if by_group else weight).mean())
    known = np.array(drawn)[np.isfinite(drawn)]  # a draw that lacks a class asks another question
    of_units = known.var() * units / (units - 1) if len(known) > 1 and units > 1 else np.nan
    folds = [None] if task.folds is None else [task.folds == name for name in np.unique(task.folds)]
    of_seeds = [(differences(np.ones(n), f).var(ddof=1) / seeds, seeds - 1) for f in folds if seeds > 1]
    mean, variances = float(differences(np.ones(n)).mean()), [(of_units, units - 1), *of_seeds]
    one, together = (_half_width(variances, 0.05 / count) for count in (1, comparisons))
    covers = "patients (split groups)" if by_group else "test tiles, of too few patients to draw from"
    return {
        "difference": mean,
        "interval": [mean - one, mean + one],
        "interval_of_all": [mean - together, mean + together],
        "covers": covers + (" and seeds" if seeds > 1 else ", of one seed: another may give something else"),
    }


def _varied(evidence: np.ndarray, fold: np.ndarray) -> np.ndarray:
    mean = evidence.astype(float).mean(0)
    return np.stack([np.where(fold.reshape(-1, *[1] * (mean.ndim - 1)), each, mean) for each in evidence])


def _half_width(variances: list[tuple[float, int]], error: float) -> float:
    """Of an interval of a sum of independent estimates, given each one's variance and degrees of freedom."""
    whole = sum(variance for variance, _ in variances)
    if not whole > 0:
        return float(whole)  # nought, or NaN
    freedom = whole**2 / sum(variance**2 / free for variance, free in variances if free)
    return float(stdtrit(freedom, 1 - error / 2) * np.sqrt(whole))


def verdict(difference: Difference, arm: str, reference: str, groups: int, words: str) -> str:
    """What may be said of an arm, in words."""
    low, high = difference["interval"]
    if not np.isfinite([low, high]).all():
        return f"Nothing can be said of '{arm}' against '{reference}': the test tiles don't allow an interval."
    points = (
        f"{100 * difference['difference']:+.1f} points of {words}, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    )
    if low > 0:
        said = f"'{arm}' was better than '{reference}' ({points})."
    elif high < 0:
        said = f"'{arm}' was worse than '{reference}' ({points})."
    else:
        said = f"No measurable difference of '{arm}' from '{reference}' ({points})."
    least, most = difference.get("interval_of_all", (low, high))
    if least <= 0 <= most and not low <= 0 <= high:
        said += f" Among all comparisons made here that may be chance ({100 * least:+.1f} to {100 * most:+.1f})."
    if groups < FEW_GROUPS:
        said += f" The test tiles are of {groups} split group{'s' if groups != 1 else ''}, so nothing follows for other patients."
    return said


def analyse(
    predictions: dict[ArmKey, list[np.ndarray]], task: Task, reference: str, seed: int, best_other: ArmKey | None = None
) -> Analysis:
    """Everything that the report says.

    Parameters
    ----------
    predictions : arm to the predictions of each seed, rows in the order of the test tiles.
    reference : the arm that the others are compared with.
    best_other : the arm over which synthetic tiles must gain; None where there is none.
    """
    evidence = {key: np.stack([task.evidence(p) for p in parts]) for key, parts in predictions.items()}
    base = next(key for key in predictions if key[0] == reference)
    pairs = {"filtering": _unfiltered(predictions), "gain": _gains(predictions, best_other)}
    anew = [
        pair for of in pairs.values() for pair in of if pair[1] != base
    ]  # others are among the comparisons with the first arm
    count, comparisons = len(set(task.groups)), len(predictions) - 1 + len(anew)

    def compared(key: ArmKey, with_: ArmKey) -> Compared:
        rng = np.random.default_rng(seed)
        change = paired_difference(task, evidence[with_], evidence[key], rng, comparisons)
        said = verdict(change, _named(key), _named(with_), count, task.words)
        return {"against": _named(with_), **change, "verdict": said}

    arms = []
    for key, parts in predictions.items():
        arm = _measured(key, parts, task)
        arms.append(arm if key == base else cast(ArmMeasures, {**arm, **compared(key, base)}))
    out: Analysis = {
        "arms": arms,
        "comparisons": comparisons,
        "test_tiles": len(task.groups),
        "test_groups": count,
        "few_groups": count < FEW_GROUPS,
        "primary_measure": task.measure,
        "thin_classes": {name: held for name, held in task.groups_by_class().items() if held < _THIN},
    }
    contrasts = {
        name: [{"arm": key[0], "ratio": key[1], **compared(key, other)} for key, other in found]
        for name, found in pairs.items()
        if found
    }
    return cast(Analysis, {**out, **contrasts})


def _measured(key: ArmKey, predictions: list[np.ndarray], task: Task) -> ArmMeasures:
    each = [task.measures(p) for p in predictions]
    spread = float(np.std([cast(dict, m)[task.measure] for m in each]))
    facts = {"arm": key[0], "ratio": key[1], "seeds": len(predictions)}
    return cast(ArmMeasures, {**facts, **averaged(each), f"{task.measure}_std_of_seeds": spread})


def _unfiltered(keys: Collection[ArmKey]) -> list[tuple[ArmKey, ArmKey]]:
    """Each arm with filtered tiles, and the same with unfiltered ones, where it was tried."""
    twins = [(key, (key[0].replace("+synthetic", "+unfiltered"), key[1])) for key in keys]
    return [(key, twin) for key, twin in twins if twin != key and twin in keys]


def _gains(keys: Collection[ArmKey], best_other: ArmKey | None) -> list[tuple[ArmKey, ArmKey]]:
    """Each arm that has strong augmentation and synthetic tiles, and the arm that it must beat."""
    if best_other is None:
        return []
    arms = {key: Arm.of(key[0]) for key in keys}
    return [(key, best_other) for key, arm in arms.items() if arm.has_synthetic and arm.augmentation == "strong"]


def _named(key: ArmKey) -> str:
    return key[0] if key[1] == 1 else f"{key[0]}, ratio {key[1]:g}"
