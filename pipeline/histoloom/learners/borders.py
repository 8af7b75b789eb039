"""How near the borders of two masks lie: boundary F1 (Csurka et al. 2013) and the Hausdorff distance's 95th percentile."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt


def border_measures(found: np.ndarray, stated: np.ndarray, tolerance_px: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Of masks (n, h, w) of class ids, whose classes count as one against the background: F1 and distance in px, (n,) each.

    A border is made of the pixels of a mask that touch the background. F1 joins the share of found border pixels that lie within the
    tolerance of a stated one, and the share of stated ones that lie within it of a found one. The distance is the larger of the two 95th
    percentiles of border pixels' distances to the other border. Of one mask without a border F1 is 0 and the distance the tile's
    diagonal. Of two without both are NaN.
    """
    f1, distance = np.full(len(found), np.nan), np.full(len(found), np.nan)
    for number, (ours, theirs) in enumerate(zip(found > 0, stated > 0)):
        first, second = border(ours), border(theirs)
        if not first.any() and not second.any():
            continue
        if not first.any() or not second.any():
            f1[number], distance[number] = 0.0, np.hypot(*first.shape)
            continue
        to_second, to_first = distance_transform_edt(~second)[first], distance_transform_edt(~first)[second]
        precision, recall = (to_second <= tolerance_px).mean(), (to_first <= tolerance_px).mean()
        f1[number] = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        distance[number] = max(np.percentile(to_second, 95), np.percentile(to_first, 95))
    return f1, distance


def border(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask (h, w) bool that have a side on the background. The edge of the picture is no background."""
    return mask & ~binary_erosion(mask, border_value=1)
