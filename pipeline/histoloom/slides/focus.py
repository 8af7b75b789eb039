"""How sharp a tile is."""

from __future__ import annotations

import numpy as np
from PIL import Image

from histoloom.slides.artefacts import DENSITY

MEASURED_AT_MPP = 1.0
"""Coarser than the grain of a scanner and of a JPEG, finer than a nucleus."""


def sharpness(picture: np.ndarray, mpp: float) -> float:
    """Standard deviation of the Laplacian of optical density over its mean, at 1 µm/px or the tile's own coarser scale.

    The quotient doesn't depend on how strongly a slide is stained. Tissue in focus has 0.2 to 1; blurred by 2 µm
    (the deviation of a Gaussian) it has less than 0.1.

    Parameters
    ----------
    picture : (h, w, 3) uint8
    """
    grey = Image.fromarray(picture).convert("L")
    shrink = MEASURED_AT_MPP / mpp
    if shrink > 1:
        grey = _shrunk(grey, [max(3, round(side / shrink)) for side in grey.size])
    density = DENSITY[np.asarray(grey)]
    return float(_laplacian(density).std() / max(density.mean(), 1e-6))


def _shrunk(grey: Image.Image, size: list[int]) -> Image.Image:
    """The mean of boxes. Of whole pixels it takes a fifth of the time."""
    (across, beyond), (down, below) = (divmod(old, new) for old, new in zip(grey.size, size))
    return grey.resize(size, Image.Resampling.BOX) if beyond or below else grey.reduce((across, down))


def _laplacian(values: np.ndarray) -> np.ndarray:
    """As scipy.ndimage.laplace, in a third of its time for a tile."""
    wide = np.pad(values, 1, mode="edge")
    return wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:] - 4 * values
