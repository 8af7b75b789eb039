"""Masks and tiles that a caller gives, as arrays, pictures or files of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from histoloom.errors import HistoloomError
from histoloom.progress import console

Picture = np.ndarray | Image.Image | Path | str
"""A tile: an array (tile_px, tile_px, 3) uint8, a picture, or the file of one."""
Tiles = np.ndarray | Sequence[Picture]
"""Tiles as an array (n, tile_px, tile_px, 3) uint8, or as pictures or files of them."""
Mask = np.ndarray | Image.Image | Path | str
"""Class ids of a tile: an array (tile_px, tile_px) of integers, a picture of one channel, or the file of one."""


def as_ids(mask: Mask, px: int, classes: tuple[str, ...]) -> np.ndarray:
    """(px, px) class ids. A square of a whole multiple or a whole fraction of px is resized by nearest neighbour, which is said.

    Raises
    ------
    HistoloomError
        for any other size, several channels, other numbers than integers, and ids beyond the classes.
    """
    name, ids = name_of(mask, "The mask"), np.asarray(opened(mask) if isinstance(mask, str | Path) else mask)
    if ids.ndim == 3:
        raise HistoloomError(
            f"{name} has {ids.shape[2]} channels. A mask has one, whose pixels are class ids: {_said(classes)}. "
            "Save it as a grey picture (mode L)."
        )
    if not (np.issubdtype(ids.dtype, np.integer) or ids.dtype == bool):
        raise HistoloomError(f"{name} holds {ids.dtype}. A mask holds a whole number a pixel: {_said(classes)}.")
    if ids.size and (ids.min() < 0 or ids.max() > len(classes)):
        wrong = ids.min() if ids.min() < 0 else ids.max()
        white = {*np.unique(ids)} <= {0, 255}
        hint = " Black and white are no ids: write 1 in place of 255 for the first class." if white else ""
        raise HistoloomError(f"{name} holds the id {wrong}. The model's classes are {_said(classes)}.{hint}")
    return _resized(ids.astype(np.uint8), px, name)


def _resized(ids: np.ndarray, px: int, name: str) -> np.ndarray:
    """Class ids of a tile, of another size that fits a whole number of times."""
    side, _ = check_mask_size(ids.shape[1], ids.shape[0], px, name)
    if side == px:
        return ids
    console.print(
        f"{name}: {side} x {side} px, taken as {px} x {px} px (nearest neighbour). If it has the scale of the tiles, cut it instead.",
        markup=False,
    )
    return ids.repeat(px // side, 0).repeat(px // side, 1) if side < px else ids[_middles(side // px)]


def check_mask_size(width: int, height: int, px: int, name: str) -> tuple[int, int]:
    """The size of a mask that fits tiles of px.

    Raises
    ------
    HistoloomError
        for one that is neither a tile's, nor a square of a whole multiple or fraction of it.
    """
    if width != height or not width or (px % width and width % px):
        raise HistoloomError(
            f"{name} is {width} x {height} px. Give a mask of {px} x {px} px, or a square of a whole multiple or fraction of that."
        )
    return width, height


def check_files(mask: Path | None, like: Path | None, px: int) -> None:
    """Refuse files that no model with tiles of px can be given, before one is loaded.

    Raises
    ------
    HistoloomError
    """
    if mask is not None:
        check_mask_size(*opened(mask).size, px, str(mask))
    if like is not None:
        as_tile(like, px)


def _middles(step: int) -> tuple[slice, slice]:
    return slice(step // 2, None, step), slice(step // 2, None, step)


def as_tile(tile: Picture, px: int) -> np.ndarray:
    """(px, px, 3) uint8.

    Raises
    ------
    HistoloomError
        for another size, or another form than opaque 8-bit RGB.
    """
    name = name_of(tile, "The tile")
    if isinstance(tile, str | Path):
        tile = opened(tile)
    if isinstance(tile, Image.Image):
        opaque = tile.mode == "RGBA" and np.asarray(tile)[..., 3].min() == 255
        if tile.mode != "RGB" and not opaque:
            raise HistoloomError(
                f"{name} is of mode {tile.mode}, as Pillow names it. A tile is opaque 8-bit RGB: grey or transparent pixels have no stain. "
                "Save it as RGB."
            )
        tile = tile.convert("RGB")
    pixels = np.asarray(tile)
    if pixels.ndim == 3 and pixels.shape[:2] != (px, px):
        raise HistoloomError(
            f"{name} is {pixels.shape[1]} x {pixels.shape[0]} px, and the model's tiles are {px} x {px} px. Cut it to that size, at the scale "
            "that you want."
        )
    if pixels.shape != (px, px, 3) or pixels.dtype != np.uint8:
        raise HistoloomError(
            f"{name} is {pixels.dtype} of shape {pixels.shape}. A tile has {px} x {px} px of 8-bit RGB."
        )
    return pixels


def name_of(given: Mask | Picture, otherwise: str) -> str:
    """How a picture is called in an error: its file, or what it is."""
    return str(given) if isinstance(given, str | Path) else otherwise


def _said(classes: tuple[str, ...]) -> str:
    return ", ".join(f"{number} {name}" for number, name in enumerate(("background", *classes)))


def opened(path: str | Path) -> Image.Image:
    """The picture of a file.

    Raises
    ------
    HistoloomError
        when there is none, or it can't be read.
    """
    if not Path(path).is_file():
        raise HistoloomError(f"There is no picture at {path}.")
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except OSError as error:
        raise HistoloomError(f"{path} can't be read as a picture: {error}") from error
