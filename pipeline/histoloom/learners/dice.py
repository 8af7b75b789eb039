"""The Dice coefficient of two masks."""

from __future__ import annotations

import numpy as np

from histoloom.data.store import UNKNOWN


def dice(found: np.ndarray, stated: np.ndarray, classes: int, agreed: float = 0.0) -> np.ndarray:
    """Dice coefficient of masks (n, h, w) of class ids, (n,): the mean over the classes that either of the two has; 1
    where neither has any. Pixels that are stated to be unknown count nothing.

    Parameters
    ----------
    agreed : what is added to both sides of the fraction, of a tile's known pixels: as if half as many pixels agreed in
        addition. Then few pixels that are missed lower the coefficient little, and many pixels much. Of several classes
        each counts by how many pixels it has beside these, so that what is found in excess never raises it.
    """
    known = stated != UNKNOWN
    found, more = np.where(known, found, 0), agreed * known.sum((1, 2))
    sizes, each = np.zeros((classes, len(found))), np.zeros((classes, len(found)))
    for number in range(classes):
        ours, theirs = found == number + 1, stated == number + 1
        sizes[number] = ours.sum((1, 2)) + theirs.sum((1, 2))
        np.divide(2 * (ours & theirs).sum((1, 2)), sizes[number], out=each[number], where=sizes[number] > 0)
    weights = np.divide(sizes, sizes + more, out=np.zeros_like(sizes), where=sizes > 0)
    total = weights.sum(0)
    mean = np.divide((weights * each).sum(0), total, out=np.ones(len(found)), where=total > 0)
    return 1 - (1 - np.prod(1 - weights, 0)) * (1 - mean)
