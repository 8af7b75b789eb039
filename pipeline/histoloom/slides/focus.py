"""How sharp a tile is."""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import laplace

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
        grey = grey.resize([max(3, round(side / shrink)) for side in grey.size], Image.Resampling.BOX)
    density = DENSITY[np.asarray(grey)]
    return float(laplace(density).std() / max(density.mean(), 1e-6))
