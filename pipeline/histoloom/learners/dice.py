"""The Dice coefficient of two masks."""

from __future__ import annotations

import numpy as np

from histoloom.data.store import UNKNOWN


def dice(found: np.ndarray, stated: np.ndarray, classes: int) -> np.ndarray:
    """Dice coefficient of masks (n, h, w) of class ids, (n,): the mean over the classes that either of the two has; 1
    where neither has any. Pixels that are stated to be unknown count nothing.
    """
    found = np.where(stated == UNKNOWN, 0, found)
    each = np.full((classes, len(found)), np.nan)
    for number in range(classes):
        ours, theirs = found == number + 1, stated == number + 1
        size = ours.sum((1, 2)) + theirs.sum((1, 2))
        np.divide(2 * (ours & theirs).sum((1, 2)), size, out=each[number], where=size > 0)
    known = np.isfinite(each)
    return np.where(known.any(0), np.nansum(each, 0) / np.maximum(known.sum(0), 1), 1.0)
