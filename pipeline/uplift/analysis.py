"""From predictions to a verdict: each arm's measures, paired differences between arms, and what may be said."""

from __future__ import annotations

import numpy as np

from pipeline.uplift.answers import Answers, averaged

FEW_GROUPS = 10
_ROUNDS = 2000
_FILTERED, _UNFILTERED = "real+synthetic", "real+unfiltered"


def paired_difference(
    answers: Answers, first: np.ndarray, second: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> dict:
    """The second arm's score less that of the first, with a 95 % interval by bootstrap.

    Parameters
    ----------
    first, second : (seeds, n, ...) each seed's evidence of each test tile; seeds are paired.
    groups : (n,) split groups; they are drawn, with seeds, where there are at least ten; else tiles are, with seeds.

    Returns
    -------
    `difference`, `interval`, and in `drawn` what the interval covers.
    """
    names, which = np.unique(groups, return_inverse=True)
    by_group, n = len(names) >= FEW_GROUPS, len(groups)

    def difference(seeds: np.ndarray, weight: np.ndarray) -> float:
        both = [[answers.score(arm[seed], weight) for seed in seeds] for arm in (second, first)]
        return float(np.mean(both[0]) - np.mean(both[1]))

    values = []
    for _ in range(_ROUNDS):
        seeds = rng.integers(0, len(first), len(first))
        drawn = rng.integers(0, len(names), len(names)) if by_group else rng.integers(0, n, n)
        weight = np.bincount(drawn, minlength=len(names) if by_group else n)
        values.append(difference(seeds, (weight[which] if by_group else weight).astype(float)))
    covers = (
        "patients (split groups) and seeds" if by_group else "test tiles and seeds, of too few patients to draw from"
    )
    return {
        "difference": difference(np.arange(len(first)), np.ones(n)),
        "interval": [float(v) for v in np.nanquantile(values, [0.025, 0.975])],
        "drawn": covers,
    }


def verdict(difference: dict, arm: str, reference: str, groups: int, words: str) -> str:
    """What may be said of an arm, in words."""
    low, high = difference["interval"]
    points = (
        f"{100 * difference['difference']:+.1f} points of {words}, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
    )
    if low > 0:
        said = f"'{arm}' helped over '{reference}' ({points})."
    elif high < 0:
        said = f"'{arm}' did worse than '{reference}' ({points})."
    else:
        said = f"No measurable help of '{arm}' over '{reference}' ({points})."
    if groups < FEW_GROUPS:
        said += f" The test tiles are of {groups} split group{'s' if groups != 1 else ''}, so nothing follows for other patients."
    return said


def analyse(
    predictions: dict[tuple[str, float], list[np.ndarray]],
    answers: Answers,
    groups: np.ndarray,
    reference: str,
    seed: int,
) -> dict:
    """Everything that the report says.

    Parameters
    ----------
    predictions : (arm, ratio) to the predictions of each seed, rows in the order of the test tiles.
    groups : (n,) split groups of the test tiles.
    """
    evidence = {key: np.stack([answers.evidence(p) for p in parts]) for key, parts in predictions.items()}
    count, arms, base = len(set(groups)), [], next(key for key in predictions if key[0] == reference)

    def compared(key: tuple[str, float], with_: tuple[str, float]) -> dict:
        change = paired_difference(answers, evidence[with_], evidence[key], groups, np.random.default_rng(seed))
        said = verdict(change, _named(key), _named(with_), count, answers.words)
        return {"against": _named(with_), **change, "verdict": said}

    for key, parts in predictions.items():
        found = {"arm": key[0], "ratio": key[1], "seeds": len(parts)}
        found |= averaged([answers.measures(p) for p in parts], answers.measure)
        arms.append(found | (compared(key, base) if key != base else {}))
    out = {
        "arms": arms,
        "test_tiles": len(groups),
        "test_groups": count,
        "primary_measure": answers.measure,
    }
    filtered = [
        (key, (_UNFILTERED, key[1]))
        for key in predictions
        if key[0] == _FILTERED and (_UNFILTERED, key[1]) in predictions
    ]
    if filtered:
        out["filtering"] = [{"ratio": key[1], **compared(key, other)} for key, other in filtered]
    return out


def _named(key: tuple[str, float]) -> str:
    return key[0] if key[1] == 1 else f"{key[0]}, ratio {key[1]:g}"
