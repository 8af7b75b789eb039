"""From predictions to a verdict: each arm's measures, paired differences between arms, and what may be said."""

from __future__ import annotations

from collections.abc import Container

import numpy as np
from scipy.special import stdtrit

from histoloom.uplift.answers import Answers, averaged

FEW_GROUPS = 10
_THIN = 3
_ROUNDS = 2000
_CONTRASTS = {
    "filtering": ("real+synthetic", "real+unfiltered"),
    "beside_classical": ("real+synthetic+classical", "real+classical"),
}
"""What is asked of pairs of arms beside the first: an arm, and the one that it is compared with."""


def paired_difference(
    answers: Answers,
    first: np.ndarray,
    second: np.ndarray,
    groups: np.ndarray,
    rng: np.random.Generator,
    folds: np.ndarray | None = None,
    comparisons: int = 1,
) -> dict:
    """The second arm's score less that of the first, with a 95 % interval.

    The variance is that of the units, by bootstrap of what the seeds have on average, and that of the seeds, over their number. The
    interval is Student's, with the degrees of freedom of such a sum (Satterthwaite 1946), so that few seeds that differ much
    make it wide.

    Parameters
    ----------
    first, second : (seeds, n, ...) each seed's evidence of each test tile; seeds are paired.
    groups : (n,) split groups, which are the units where there are at least ten; else the tiles are.
    folds : (n,) which fold of a cross-validation each tile was held out in; models of different folds have no seed in common.
    comparisons : of how many this is one.

    Returns
    -------
    `difference`, `interval` (NaN where nothing can be said), `interval_of_all`, wide enough that 95 times of 100 all comparisons' hold
    the truth (Dunn 1961), and in `covers` what the intervals cover.
    """
    names, which = np.unique(groups, return_inverse=True)
    by_group, seeds = len(names) >= FEW_GROUPS, len(first)
    units = len(names) if by_group else len(groups)

    def differences(weight: np.ndarray, fold: np.ndarray | None = None) -> np.ndarray:
        """(seeds,) Each seed's; of a fold, each seed's there and what all have on average elsewhere."""
        arms = (first, second) if fold is None else (_varied(first, fold), _varied(second, fold))
        return np.array([answers.score(b, weight) - answers.score(a, weight) for a, b in zip(*arms)])

    found = differences(np.ones(len(groups)))
    drawn = []
    for _ in range(_ROUNDS):
        weight = np.bincount(rng.integers(0, units, units), minlength=units).astype(float)
        drawn.append(differences(weight[which] if by_group else weight).mean())
    known = np.array(drawn)[np.isfinite(drawn)]  # a draw that lacks a class asks another question
    of_units = known.var() * units / (units - 1) if len(known) > 1 and units > 1 else np.nan
    of_seeds = [
        (differences(np.ones(len(groups)), fold).var(ddof=1) / seeds, seeds - 1)
        for fold in _members(folds, len(groups))
        if seeds > 1
    ]
    mean, variances = float(found.mean()), [(of_units, units - 1), *of_seeds]
    one, together = (_half_width(variances, 0.05 / count) for count in (1, comparisons))
    covers = "patients (split groups)" if by_group else "test tiles, of too few patients to draw from"
    return {
        "difference": mean,
        "interval": [mean - one, mean + one],
        "interval_of_all": [mean - together, mean + together],
        "covers": covers + (" and seeds" if seeds > 1 else ", of one seed: another may give something else"),
    }


def _members(folds: np.ndarray | None, n: int) -> list[np.ndarray]:
    """(n,) bool for each fold."""
    return [np.ones(n, bool)] if folds is None else [folds == name for name in np.unique(folds)]


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


def verdict(difference: dict, arm: str, reference: str, groups: int, words: str) -> str:
    """What may be said of an arm, in words."""
    low, high = difference["interval"]
    if not np.isfinite([low, high]).all():
        return f"Nothing can be said of '{arm}' against '{reference}': the test tiles don't allow an interval."
    points = (
        f"{100 * difference['difference']:+.1f} points of {words}, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    )
    if low > 0:
        said = f"'{arm}' helped over '{reference}' ({points})."
    elif high < 0:
        said = f"'{arm}' did worse than '{reference}' ({points})."
    else:
        said = f"No measurable help of '{arm}' over '{reference}' ({points})."
    least, most = difference.get("interval_of_all", (low, high))
    if least <= 0 <= most and not low <= 0 <= high:
        said += f" Among all comparisons made here that may be chance ({100 * least:+.1f} to {100 * most:+.1f})."
    if groups < FEW_GROUPS:
        said += f" The test tiles are of {groups} split group{'s' if groups != 1 else ''}, so nothing follows for other patients."
    return said


def analyse(
    predictions: dict[tuple[str, float], list[np.ndarray]],
    answers: Answers,
    groups: np.ndarray,
    reference: str,
    seed: int,
    folds: np.ndarray | None = None,
) -> dict:
    """Everything that the report says.

    Parameters
    ----------
    predictions : (arm, ratio) to the predictions of each seed, rows in the order of the test tiles.
    groups : (n,) split groups of the test tiles.
    folds : (n,) of a cross-validation, which one each was held out in.
    """
    evidence = {key: np.stack([answers.evidence(p) for p in parts]) for key, parts in predictions.items()}
    base = next(key for key in predictions if key[0] == reference)
    pairs = {
        name: [
            (key, found)
            for key in predictions
            if key[0] == arm and other != reference and (found := _matching(predictions, other, key[1])) is not None
        ]
        for name, (arm, other) in _CONTRASTS.items()
    }
    count, comparisons = len(set(groups)), len(predictions) - 1 + sum(map(len, pairs.values()))

    def compared(key: tuple[str, float], with_: tuple[str, float]) -> dict:
        rng = np.random.default_rng(seed)
        change = paired_difference(answers, evidence[with_], evidence[key], groups, rng, folds, comparisons)
        said = verdict(change, _named(key), _named(with_), count, answers.words)
        return {"against": _named(with_), **change, "verdict": said}

    arms = []
    for key, parts in predictions.items():
        found = {"arm": key[0], "ratio": key[1], "seeds": len(parts)}
        found |= averaged([answers.measures(p) for p in parts], answers.measure)
        arms.append(found | (compared(key, base) if key != base else {}))
    out = {
        "arms": arms,
        "comparisons": comparisons,
        "test_tiles": len(groups),
        "test_groups": count,
        "primary_measure": answers.measure,
        "thin_classes": {name: held for name, held in answers.groups_by_class(groups).items() if held < _THIN},
    }
    return out | {
        name: [{"ratio": key[1], **compared(key, other)} for key, other in found]
        for name, found in pairs.items()
        if found
    }


def _matching(keys: Container[tuple[str, float]], arm: str, ratio: float) -> tuple[str, float] | None:
    """The arm at this ratio, or as it is where it has none."""
    return next((key for key in ((arm, ratio), (arm, 1.0)) if key in keys), None)


def _named(key: tuple[str, float]) -> str:
    return key[0] if key[1] == 1 else f"{key[0]}, ratio {key[1]:g}"
