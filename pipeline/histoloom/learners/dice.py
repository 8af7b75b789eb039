"""The Dice coefficient of two masks."""

from __future__ import annotations

import numpy as np

from histoloom.data.store import UNKNOWN


def dice(found: np.ndarray, stated: np.ndarray, classes: int, agreed: float = 0.0) -> np.ndarray:
    """Dice coefficient of masks (n, h, w) of class ids, (n,): the mean over the classes that either of the two has; 1
    where neither has any. Pixels that are stated to be unknown count nothing.

    Parameters
    ----------
    agreed : what is added to both sides of each class's fraction, of a tile's pixels: as if half as many pixels agreed in
        addition. Then a class of few pixels that is missed lowers the coefficient little, and one of many pixels much.
    """
    found = np.where(stated == UNKNOWN, 0, found)
    each, more = np.full((classes, len(found)), np.nan), agreed * stated[0].size if len(stated) else 0.0
    for number in range(classes):
        ours, theirs = found == number + 1, stated == number + 1
        size = ours.sum((1, 2)) + theirs.sum((1, 2))
        np.divide(2 * (ours & theirs).sum((1, 2)) + more, size + more, out=each[number], where=size > 0)
    known = np.isfinite(each)
    return np.where(known.any(0), np.nansum(each, 0) / np.maximum(known.sum(0), 1), 1.0)
