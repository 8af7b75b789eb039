"""How well objects are told apart: the aggregated Jaccard index and panoptic quality."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class InstanceMeasures(NamedTuple):
    """aji : aggregated Jaccard index (Kumar et al. 2017). pq : panoptic quality (Kirillov et al. 2019), the product of `dq`, the F1 of objects
    that are found with an overlap above a half, and `sq`, their mean overlap. All from 0 to 1."""

    aji: float
    pq: float
    dq: float
    sq: float


def instance_measures(found: np.ndarray, stated: np.ndarray) -> InstanceMeasures:
    """Of numbers of objects (h, w), 0 for background: of those that were found, and of those that there are. NaN where neither has any."""
    ours, theirs = (np.unique(numbers, return_inverse=True) for numbers in (found, stated))
    both = np.zeros((len(ours[0]), len(theirs[0])), np.int64)
    np.add.at(both, (ours[1].ravel(), theirs[1].ravel()), 1)
    areas = [both.sum(1), both.sum(0)]
    kept = [names != 0 for names in (ours[0], theirs[0])]
    both, (first, second) = both[kept[0]][:, kept[1]], (area[own] for area, own in zip(areas, kept))
    if not len(first) and not len(second):
        return InstanceMeasures(*[float("nan")] * 4)
    if not len(first) or not len(second):
        return InstanceMeasures(0.0, 0.0, 0.0, 0.0)
    overlap = both / (first[:, None] + second[None] - both)
    best = overlap.argmax(0)
    hit = both[best, np.arange(len(second))] > 0
    union = (first[best] + second - both[best, np.arange(len(second))])[hit].sum() + second[~hit].sum()
    missed = np.ones(len(first), bool)
    missed[best[hit]] = False
    aji = both[best, np.arange(len(second))][hit].sum() / (union + first[missed].sum())
    matched = overlap[overlap > 0.5]  # an object has one partner at most
    dq = 2 * len(matched) / (len(first) + len(second))
    sq = float(matched.mean()) if len(matched) else 0.0
    return InstanceMeasures(float(aji), dq * sq, dq, sq)
