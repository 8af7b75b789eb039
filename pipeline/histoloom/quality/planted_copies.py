"""Copies of real tiles, disguised, for measuring what the near-copy filter catches."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from skimage.color import hed2rgb, rgb2hed

from histoloom.data.pixel_box import PixelBox

JPEG_QUALITY = 50
SCALE = 0.05
SHIFT = 0.25
"""Of the tile's side, at most, along each axis."""


def flipped(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(image[:, ::-1])


def rotated(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(image, int(generator.integers(1, 4))))


def restained(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Each stain of a colour deconvolution (Ruifrok & Johnston 2001) up to 30 % stronger or weaker, and a little added."""
    stains = rgb2hed(image) * generator.uniform(0.7, 1.3, 3) + generator.uniform(-0.02, 0.02, 3)
    return (hed2rgb(stains) * 255).round().astype(np.uint8)


def compressed(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY)
    return np.asarray(Image.open(stream))


def blurred(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """By a hundred-and-twenty-eighth of the tile's side."""
    sigma = image.shape[0] / 128
    return gaussian_filter(image.astype(np.float32), (sigma, sigma, 0)).round().astype(np.uint8)


def cut(
    picture: np.ndarray, box: PixelBox[int], generator: np.random.Generator, *, shift: bool = False, scale: bool = False
) -> np.ndarray:
    """The tile of a picture (h, w, 3) uint8 in a square box or near it, shifted or scaled as asked.

    The picture holds what comes into view.
    """
    side = box.width
    wanted = round(side / generator.choice([1 - SCALE, 1 + SCALE])) if scale else side
    most = int(SHIFT * side)
    offsets = generator.integers(-most, most + 1, 2) if shift else (0, 0)
    rows, columns = (
        int(np.clip(at + offset + (side - wanted) // 2, 0, length - wanted))
        for at, offset, length in zip((box.top, box.left), offsets, picture.shape)
    )
    tile = picture[rows : rows + wanted, columns : columns + wanted]
    if wanted == side:
        return np.ascontiguousarray(tile)
    return np.asarray(Image.fromarray(np.ascontiguousarray(tile)).resize((side, side), Image.Resampling.BICUBIC))


DISGUISES = {
    "flip": flipped, "turn": rotated, "stain": restained, "jpeg": compressed, "blur": blurred,
}  # fmt: skip
"""What needs nothing but the tile."""


IN_PLACE = ("stain", "jpeg", "blur")
"""Disguises that leave everything where it is."""


def disguised(image: np.ndarray, generator: np.random.Generator, names: Iterable[str] = tuple(DISGUISES)) -> np.ndarray:
    """All these disguises at once."""
    for name in names:
        image = DISGUISES[name](image, generator)
    return image
