"""Filters that take noise out of a picture without having learnt anything: what a network must beat.

The only thing that is fitted is how strongly they smooth: that which does best on a few pairs of tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import convolve1d, median_filter

Smooth = Callable[[np.ndarray, float], np.ndarray]
"""A tile (h, w, 3) uint8, and how strongly it is smoothed, to the same."""

_DAUBECHIES = (-0.48296291, 0.83651630, -0.22414387, -0.12940952)
"""The high-pass filter of two vanishing moments."""
_OF_NORMAL = 0.6745
"""Median of the absolute values of a standard normal."""


@dataclass(frozen=True)
class Filter:
    """A way to smooth at a fixed strength."""

    smooth: Smooth
    strength: float

    def __call__(self, tile: np.ndarray) -> np.ndarray:
        return self.smooth(tile, self.strength)


def fit_filter(name: str, noisy: np.ndarray, truth: np.ndarray) -> Filter:
    """A filter at the strength whose mean squared error is least.

    Parameters
    ----------
    name : of `FILTERS`.
    noisy, truth : tiles (n, h, w, 3) uint8 that are not tested on.
    """
    run, strengths = FILTERS[name]
    errors = [_error(np.stack([run(tile, strength) for tile in noisy]), truth) for strength in strengths]
    return Filter(run, strengths[int(np.argmin(errors))])


def noise_level(tile: np.ndarray) -> float:
    """Standard deviation of a tile's noise, grey levels: the median of its finest diagonal wavelets (Donoho & Johnstone 1994).

    tile : (h, w, 3).
    """
    details = tile.astype(float)
    for axis in (0, 1):
        details = convolve1d(details, _DAUBECHIES, axis)[(slice(None),) * axis + (slice(1, -2, 2),)]  # whole windows
    return float(np.median(np.abs(details), (0, 1)).mean() / _OF_NORMAL)


def _median(tile: np.ndarray, strength: float) -> np.ndarray:
    """strength : side of the window, px."""
    return median_filter(tile, (int(strength), int(strength), 1))


def _non_local_means(tile: np.ndarray, strength: float) -> np.ndarray:
    """Buades et al. 2005. strength : the width of the weights over the noise's deviation."""
    from skimage.restoration import denoise_nl_means

    sigma = noise_level(tile) / 255
    found = denoise_nl_means(
        tile / 255, 5, 6, strength * sigma, fast_mode=True, sigma=sigma, channel_axis=-1, preserve_range=True
    )
    return _to_grey(found)


def _total_variation(tile: np.ndarray, strength: float) -> np.ndarray:
    """Rudin et al. 1992, by Chambolle 2004. strength : the weight of smoothness over the noise's deviation."""
    from skimage.restoration import denoise_tv_chambolle

    return _to_grey(denoise_tv_chambolle(tile / 255, strength * noise_level(tile) / 255, channel_axis=-1))


def _to_grey(values: np.ndarray) -> np.ndarray:
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)


def _error(made: np.ndarray, truth: np.ndarray) -> float:
    return float(np.square(made.astype(float) - truth).mean())


FILTERS: dict[str, tuple[Smooth, tuple[float, ...]]] = {
    "median": (_median, (1, 3, 5, 7)),
    "non_local_means": (_non_local_means, (0.4, 0.6, 0.8, 1.0, 1.4)),
    "total_variation": (_total_variation, (0.5, 1.0, 1.5, 2.0, 3.0)),
}
"""Each with the strengths that are tried."""
