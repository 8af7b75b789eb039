"""Ways in which a tile can be bad, for measuring what the quality filter catches."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter


def degrade(images: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Spoil each tile in one way, drawn at random: heavy blur, noise, wash-out, wrong colour or blank.

    (n, h, w, 3) uint8 to the same.
    """
    ways = (_blur, _noise, _wash_out, _wrong_colour, _blank)
    out = [ways[generator.integers(len(ways))](image.astype(np.float32), generator) for image in images]
    return np.stack(out).round().clip(0, 255).astype(np.uint8)


def _blur(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    sigma = image.shape[0] * generator.uniform(0.06, 0.12)
    return gaussian_filter(image, (sigma, sigma, 0))


def _noise(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return image + generator.normal(0, generator.uniform(35, 80), image.shape)


def _wash_out(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return 235 + (image - 235) * generator.uniform(0.05, 0.2)


def _wrong_colour(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return image[..., generator.permutation([1, 2, 0] if generator.random() < 0.5 else [1, 0, 2])]


def _blank(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.full_like(image, generator.uniform(200, 250)) + generator.normal(0, 3, image.shape)
