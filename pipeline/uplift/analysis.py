"""From predictions to a verdict: measures of each classifier, paired differences between arms, and what may be said."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from pipeline.models.classifier import expected_calibration_error

FEW_GROUPS = 10
_ROUNDS = 2000


def measures(probabilities: np.ndarray, truth: np.ndarray, classes: tuple[str, ...]) -> dict:
    """Balanced accuracy, AUROC (one class against the rest, averaged), recall by class and calibration error.

    Parameters
    ----------
    probabilities : (n, classes); truth : (n,) class numbers. Classes that the test tiles lack don't count.
    """
    present = np.unique(truth)
    recall = {classes[k]: float((probabilities[truth == k].argmax(1) == k).mean()) for k in present}
    auroc = [roc_auc_score(truth == k, probabilities[:, k]) for k in present if 0 < (truth == k).sum() < len(truth)]
    return {
        "balanced_accuracy": float(np.mean(list(recall.values()))),
        "auroc": float(np.mean(auroc)) if auroc else None,
        "recall": recall,
        "calibration_error": expected_calibration_error(probabilities, truth),
    }


def balanced_accuracy(right: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> float:
    """Mean over classes of the weighted share of tiles that were right: (n,) bool, (n,), (n,)."""
    shares = [
        np.average(right[truth == k], weights=weight[truth == k]) for k in np.unique(truth) if weight[truth == k].sum()
    ]
    return float(np.mean(shares)) if shares else float("nan")


def paired_difference(
    first: np.ndarray, second: np.ndarray, truth: np.ndarray, groups: np.ndarray, rng: np.random.Generator
) -> dict:
    """Balanced accuracy of the second arm less that of the first, with a 95 % interval by bootstrap.

    Parameters
    ----------
    first, second : (seeds, n) whether each seed's classifier was right about each test tile; seeds are paired.
    groups : (n,) split groups; they are drawn, with seeds, where there are at least ten; else tiles are, with seeds.

    Returns
    -------
    `difference`, `interval`, and in `drawn` what the interval covers.
    """
    names, which = np.unique(groups, return_inverse=True)
    by_group = len(names) >= FEW_GROUPS
    n = len(truth)

    def difference(seeds: np.ndarray, weight: np.ndarray) -> float:
        both = [[balanced_accuracy(arm[seed], truth, weight) for seed in seeds] for arm in (second, first)]
        return float(np.mean(both[0]) - np.mean(both[1]))

    values = []
    for _ in range(_ROUNDS):
        seeds = rng.integers(0, len(first), len(first))
        if by_group:
            weight = np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names))[which]
        else:
            weight = np.bincount(rng.integers(0, n, n), minlength=n)
        values.append(difference(seeds, weight.astype(float)))
    everything = difference(np.arange(len(first)), np.ones(n))
    covers = (
        "patients (split groups) and seeds" if by_group else "test tiles and seeds, of too few patients to draw from"
    )
    return {
        "difference": everything,
        "interval": [float(v) for v in np.nanquantile(values, [0.025, 0.975])],
        "drawn": covers,
    }


def verdict(difference: dict, arm: str, reference: str, groups: int) -> str:
    """What may be said of an arm, in words."""
    low, high = difference["interval"]
    points = f"{100 * difference['difference']:+.1f} points of balanced accuracy, 95 % interval {100 * low:+.1f} to {100 * high:+.1f}"
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
    test: pd.DataFrame,
    classes: tuple[str, ...],
    reference: str,
    seed: int,
) -> dict:
    """Everything that the report says.

    Parameters
    ----------
    predictions : (arm, ratio) to the probabilities (n, classes) of each seed.
    test : the test rows, in the same order, with `label` and `split_group`.
    """
    truth = test["label"].map({name: number for number, name in enumerate(classes)}).to_numpy(int)
    groups = test["split_group"].to_numpy(str)
    right = {key: np.stack([p.argmax(1) == truth for p in parts]) for key, parts in predictions.items()}
    arms, base = [], next(key for key in predictions if key[0] == reference)
    for key, parts in predictions.items():
        each = [measures(p, truth, classes) for p in parts]
        found = {"arm": key[0], "ratio": key[1], "seeds": len(parts), **_averaged(each)}
        if key != base:
            change = paired_difference(right[base], right[key], truth, groups, np.random.default_rng(seed))
            found |= {"against": reference, **change}
            found["verdict"] = verdict(change, _named(key), reference, len(set(groups)))
        arms.append(found)
    return {
        "arms": arms,
        "test_tiles": len(test),
        "test_groups": len(set(groups)),
        "primary_measure": "balanced_accuracy",
    }


def _named(key: tuple[str, float]) -> str:
    return key[0] if key[1] == 1 else f"{key[0]}, ratio {key[1]:g}"


def _averaged(each: list[dict]) -> dict:
    def mean(of: Callable[[dict], float | None]) -> float | None:
        values = [v for v in map(of, each) if v is not None]
        return float(np.mean(values)) if values else None

    spread = np.std([m["balanced_accuracy"] for m in each])
    return {
        "balanced_accuracy": mean(lambda m: m["balanced_accuracy"]),
        "balanced_accuracy_std_of_seeds": float(spread),
        "auroc": mean(lambda m: m["auroc"]),
        "calibration_error": mean(lambda m: m["calibration_error"]),
        "recall": {name: mean(lambda m, name=name: m["recall"][name]) for name in each[0]["recall"]},
    }
