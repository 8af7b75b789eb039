"""Ways in which a tile can be bad, for measuring what the quality filter catches."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter


def degrade(images: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Spoil each tile in one way, drawn at random.

    (n, h, w, 3) uint8 to the same, and the names of the ways (n,).
    """
    names = generator.choice(sorted(WAYS), len(images))
    out = [WAYS[name](image.astype(np.float32), generator) for name, image in zip(names, images)]
    return np.array(out).round().clip(0, 255).astype(np.uint8).reshape(images.shape), names


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


def _pen(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A felt-tip's stroke, through which a little of the tissue shows."""
    side = image.shape[0]
    y, x = np.mgrid[:side, :side]
    angle, offset = generator.uniform(0, np.pi), generator.uniform(-0.2, 0.2) * side
    across = np.abs((x - side / 2) * np.sin(angle) - (y - side / 2) * np.cos(angle) - offset)
    inside = (across < generator.uniform(0.2, 0.35) * side)[..., None]
    ink = np.array([(20, 60, 160), (10, 110, 60), (25, 25, 30)][generator.integers(3)])
    return np.where(inside, ink + 0.15 * (image - 128), image)


WAYS = {
    "blur": _blur, "noise": _noise, "wash-out": _wash_out, "wrong colour": _wrong_colour, "blank": _blank, "pen": _pen,
}  # fmt: skip
