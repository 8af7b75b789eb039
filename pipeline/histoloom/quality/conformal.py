"""A deviation made honest: how many deviations wide an interval must be to hold the truth as often as is asked.

Conformal risk control (Angelopoulos et al. 2024): on tiles that were kept aside, the width is the least at which the share of pixels outside
stays below what is asked, one tile that is not known counted as missed whole. On new tiles of the same kind the share holds on average.
"""

from __future__ import annotations

import numpy as np

_LEAST_DEVIATION = 0.5
"""Grey levels: samples that agree to the bit are no surer than rounding."""


def fit_width(errors: np.ndarray, deviations: np.ndarray, coverage: float) -> float:
    """The least number of deviations within which a share of `coverage` of a new tile's pixels lies.

    Parameters
    ----------
    errors, deviations : (n, ...) of n tiles that neither model nor samples have seen, grey levels.

    Raises
    ------
    ValueError
        when there are too few tiles: n must be at least coverage / (1 - coverage).
    """
    ratios = _ratios(errors, deviations)
    count, pixels = ratios.shape
    allowed = ((count + 1) * (1 - coverage) - 1) / count
    if allowed < 0:
        raise ValueError(f"{count} tiles can't show that {coverage:.0%} of the pixels lie within an interval.")
    every = np.sort(ratios, axis=None)
    return float(every[min(int(np.ceil((1 - allowed) * count * pixels)), count * pixels) - 1])


def covered(errors: np.ndarray, deviations: np.ndarray, width: float) -> np.ndarray:
    """(n,) the share of each tile's pixels that lie within `width` deviations."""
    return (_ratios(errors, deviations) <= width).mean(1)


def _ratios(errors: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    return (np.abs(errors) / np.maximum(deviations, _LEAST_DEVIATION)).reshape(len(errors), -1)
