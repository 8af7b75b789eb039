"""Intervals: groups are drawn, because tiles of one patient are not independent."""

from __future__ import annotations

from math import hypot
from typing import TypedDict

import numpy as np
from scipy.stats import binomtest

FEW = 10
"""Fewer groups than this tell nothing of others: rows are drawn in their place."""


def group_draws(groups: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`count` bootstrap draws of row numbers, each with every label.

    Whole groups are drawn where there are at least ten, and rows where there are fewer.
    """
    groups = groups.astype(str)
    names = np.unique(groups)
    draws = []
    for _ in range(count):
        if len(names) >= FEW:
            chosen = rng.choice(names, len(names))
            draw = np.concatenate([np.flatnonzero(groups == name) for name in chosen])
        else:
            draw = rng.integers(0, len(groups), len(groups))
        missing = sorted(set(labels) - set(labels[draw]))
        draws.append(np.concatenate([draw, *[np.flatnonzero(labels == label) for label in missing]]))
    return draws


class Excess(TypedDict):
    """Fraction of samples that `near_copy` flags less that of real test tiles, and its 95 % interval; samples, real : how many there were."""

    excess: float
    interval: list[float]
    samples: int
    real: int


def near_copy_excess(flagged: int, samples: int, false_rejection: float, real: int) -> Excess:
    """Of unfiltered samples flagged as near-copies, less the fraction of real test tiles that is; by the hybrid of Wilson's scores
    (Newcombe 1998, method 10), tiles taken as independent."""
    alike = round(false_rejection * real)
    p, q = flagged / samples, alike / real
    a, b = (binomtest(k, of).proportion_ci(method="wilson") for k, of in ((flagged, samples), (alike, real)))
    interval = [p - q - hypot(p - a.low, b.high - q), p - q + hypot(a.high - p, q - b.low)]
    return {"excess": p - q, "interval": interval, "samples": samples, "real": real}
