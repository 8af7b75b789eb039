"""Masks and tiles that a caller of `sample` gives, as arrays, pictures or files of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from histoloom.errors import HistoloomError

Picture = np.ndarray | Image.Image | Path | str
"""A tile: an array (tile_px, tile_px, 3) uint8, a picture, or the file of one."""
Mask = np.ndarray | Image.Image | Path | str
"""Class ids of a tile: an array (tile_px, tile_px) of integers, a picture of one channel, or the file of one."""


def as_ids(mask: Mask, px: int, classes: tuple[str, ...]) -> np.ndarray:
    """(px, px) class ids.

    Raises
    ------
    HistoloomError
        for another size, other numbers than integers, and ids beyond the classes.
    """
    if isinstance(mask, str | Path):
        mask = _opened(mask)
    ids = np.asarray(mask)
    if ids.shape != (px, px) or not np.issubdtype(ids.dtype, np.integer):
        raise HistoloomError(
            f"A mask holds a whole number a pixel, {px} x {px} of them; this is {ids.dtype} of shape "
            f"{ids.shape}. Its classes are {_said(classes)}."
        )
    if ids.min() < 0 or ids.max() > len(classes):
        raise HistoloomError(f"A mask holds the id {ids.max()}. The model's classes are {_said(classes)}.")
    return ids


def as_tile(tile: Picture, px: int) -> np.ndarray:
    """(px, px, 3) uint8.

    Raises
    ------
    HistoloomError
        for another size, or another form than opaque 8-bit RGB.
    """
    if isinstance(tile, str | Path):
        tile = _opened(tile)
    if isinstance(tile, Image.Image):
        opaque = tile.mode == "RGBA" and np.asarray(tile)[..., 3].min() == 255
        if tile.mode != "RGB" and not opaque:
            raise HistoloomError(
                f"A tile to be like is opaque 8-bit RGB; this picture is {tile.mode}, as Pillow names it. Save it as RGB: grey or transparent "
                "pixels have no stain to be like."
            )
        tile = tile.convert("RGB")
    pixels = np.asarray(tile)
    if pixels.shape != (px, px, 3) or pixels.dtype != np.uint8:
        raise HistoloomError(
            f"A tile to be like has {px} x {px} px of 8-bit RGB; this is {pixels.dtype} of shape {pixels.shape}. Cut it to "
            "that size, at the scale that you want."
        )
    return pixels


def _said(classes: tuple[str, ...]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(("background", *classes)))


def _opened(path: str | Path) -> Image.Image:
    if not Path(path).is_file():
        raise HistoloomError(f"There is no picture at {path}.")
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except OSError as error:
        raise HistoloomError(f"{path} can't be read as a picture: {error}") from error
