"""Damage planted on tiles, so that the undamaged truth is known when something restores them.

Three kinds lie in a region: ink, a fold, an air bubble. Four touch a whole tile: noise, blur, JPEG compression, uneven stain.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

Draw = np.random.Generator
Planted = tuple[np.ndarray, np.ndarray]
"""A tile (h, w, 3) float in 0 to 255, and where it is damaged, (h, w) bool."""

_INKS = ((20, 60, 160), (10, 110, 60), (25, 25, 30), (170, 30, 40))
_GLASS = 243.0


@dataclass(frozen=True)
class Damaged:
    """images : (n, h, w, 3) uint8. where : (n, h, w) bool, what was damaged; elsewhere a tile is as it was, to the bit. kinds : (n,)."""

    images: np.ndarray
    where: np.ndarray
    kinds: np.ndarray


def damage(images: np.ndarray, kinds: Sequence[str], seed: int) -> Damaged:
    """Damage each tile in one way.

    Parameters
    ----------
    images : (n, h, w, 3) uint8, square.
    kinds : of `REGIONS` and `WHOLE`, taken in turn.
    seed : a tile's damage depends on it and on the tile's place alone.
    """
    out, where = images.copy(), np.zeros(images.shape[:3], bool)
    names = np.array([kinds[place % len(kinds)] for place in range(len(images))])
    for place, name in enumerate(names):
        draw = np.random.default_rng([seed, place])
        values, region = (REGIONS | WHOLE)[name](images[place].astype(np.float64), draw)
        changed = np.rint(values.clip(0, 255)).astype(np.uint8)
        out[place] = np.where(region[..., None], changed, images[place])
        where[place] = region
    return Damaged(out, where, names)


def _ink(image: np.ndarray, draw: Draw) -> Planted:
    """A felt-tip's stroke, through which a little of the tissue shows."""
    inside = _across(image.shape[0], draw) < draw.uniform(0.12, 0.2) * image.shape[0]
    colour = np.array(_INKS[draw.integers(len(_INKS))])
    return np.where(inside[..., None], colour * (0.85 + 0.15 * image / 255), image), inside


def _fold(image: np.ndarray, draw: Draw) -> Planted:
    """Tissue lying on tissue: what a line mirrors is laid over a band, and densities add."""
    side, width = image.shape[0], draw.uniform(0.12, 0.22) * image.shape[0]
    angle, offset = draw.uniform(0, np.pi), draw.uniform(-0.15, 0.15) * side
    y, x = np.mgrid[:side, :side].astype(float)
    across = (x - side / 2) * np.sin(angle) - (y - side / 2) * np.cos(angle) - offset
    places = np.stack([y + 2 * (across - width) * np.cos(angle), x - 2 * (across - width) * np.sin(angle)])
    over = np.stack([map_coordinates(image[..., colour], places, order=1, mode="mirror") for colour in range(3)], -1)
    inside = np.abs(across) < width
    return np.where(inside[..., None], image * over / _GLASS, image), inside


def _bubble(image: np.ndarray, draw: Draw) -> Planted:
    """A disc out of focus and bright, within a dark rim that refracts the light away."""
    side = image.shape[0]
    y, x = np.mgrid[:side, :side]
    radius = draw.uniform(0.2, 0.32) * side
    away = np.hypot(*(axis - side / 2 - draw.uniform(-0.12, 0.12) * side for axis in (y, x))) / radius
    blurred = gaussian_filter(image, (0.06 * side, 0.06 * side, 0))
    rim = np.exp(-(((away - 0.92) / 0.06) ** 2))[..., None]
    return (0.6 * blurred + 0.4 * _GLASS) * (1 - 0.85 * rim), away < 1


def _noise(image: np.ndarray, draw: Draw) -> Planted:
    """A camera's: of photons, of which white has 200, and of its electronics."""
    photons = draw.poisson(np.maximum(image, 0) / 255 * 200) / 200 * 255
    return photons + draw.normal(0, draw.uniform(10, 20), image.shape), _all(image)


def _blur(image: np.ndarray, draw: Draw) -> Planted:
    sigma = draw.uniform(1.0, 2.0)
    return gaussian_filter(image, (sigma, sigma, 0)), _all(image)


def _jpeg(image: np.ndarray, draw: Draw) -> Planted:
    held = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(held, "JPEG", quality=int(draw.integers(8, 20)))
    return np.asarray(Image.open(held)).astype(np.float64), _all(image)


def _stain(image: np.ndarray, draw: Draw) -> Planted:
    """Densities that rise and fall across the tile, by half at most."""
    side = image.shape[0]
    angle, phase = draw.uniform(0, 2 * np.pi, 2)
    y, x = np.mgrid[:side, :side] / side
    strength = 1 + 0.5 * np.sin(np.pi * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    return _GLASS * (np.maximum(image, 1) / _GLASS) ** strength[..., None], _all(image)


def _across(side: int, draw: Draw) -> np.ndarray:
    """How far each pixel lies from a line near the middle, px."""
    y, x = np.mgrid[:side, :side]
    angle, offset = draw.uniform(0, np.pi), draw.uniform(-0.2, 0.2) * side
    return np.abs((x - side / 2) * np.sin(angle) - (y - side / 2) * np.cos(angle) - offset)


def _all(image: np.ndarray) -> np.ndarray:
    return np.ones(image.shape[:2], bool)


REGIONS: dict[str, Callable[[np.ndarray, Draw], Planted]] = {"ink": _ink, "fold": _fold, "bubble": _bubble}
WHOLE: dict[str, Callable[[np.ndarray, Draw], Planted]] = {
    "noise": _noise, "blur": _blur, "jpeg": _jpeg, "stain": _stain,
}  # fmt: skip
