"""Physical measures of a tile, and how far they lie from those of real tissue.

A tile that is blurred, noisy, washed out, blank or wrongly coloured differs from real tissue in a measure that has a
name, whatever it came from. A network's verdict on tiles unlike any that it saw would be arbitrary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.ndimage import laplace

MEASURES = ("log_sharpness", "log_contrast", "density", "red_over_green", "blue_over_green", "glass")
_GLASS_DENSITY = 0.06
_RIDGE = 1e-3


def measure(images: np.ndarray) -> np.ndarray:
    """Measure tiles (n, h, w, 3) uint8.

    Returns
    -------
    (n, 6): log mean absolute Laplacian, log standard deviation and mean of the grey optical density, differences of
    mean optical density between red or blue and green, and the fraction of empty glass.
    """
    out = np.empty((len(images), len(MEASURES)))
    for row, image in enumerate(images):
        density = -np.log10((image.astype(np.float32) + 1) / 256)
        grey, (red, green, blue) = density.mean(-1), density.mean((0, 1))
        sharpness = np.abs(laplace(grey)).mean()
        out[row] = (np.log(sharpness + 1e-4), np.log(grey.std() + 1e-4), grey.mean(), red - green, blue - green,
                    (grey < _GLASS_DENSITY).mean())  # fmt: skip
    return out


@dataclass(frozen=True)
class TissueRange:
    """Where the measures of real tissue lie: mean (6,) and inverse covariance (6, 6)."""

    mean: np.ndarray
    precision: np.ndarray

    def score(self, images: np.ndarray) -> np.ndarray:
        """Minus the Mahalanobis distance from real tissue, (n,): 0 at its centre, lower is worse."""
        offset = measure(images) - self.mean
        return -np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", offset, self.precision, offset), 0))

    def save(self, folder: Path) -> None:
        save_file({"mean": self.mean, "precision": self.precision}, folder / "quality.safetensors")


def load_range(folder: Path) -> TissueRange:
    return TissueRange(**load_file(folder / "quality.safetensors"))


def fit_range(images: np.ndarray) -> TissueRange:
    """Fit to real tiles (n, h, w, 3) uint8; a small ridge keeps the covariance invertible."""
    values = measure(images)
    covariance = np.atleast_2d(np.cov(values.T)) if len(values) > 1 else np.zeros((len(MEASURES),) * 2)
    return TissueRange(values.mean(0), np.linalg.inv(covariance + _RIDGE * np.eye(len(MEASURES))))
