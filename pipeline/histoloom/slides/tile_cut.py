"""A tile out of a picture of a set, and tiles beside each other to be looked at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image

SHEET = 8
"""Tiles of a contact sheet, along and down."""
_SHOWN_PX = 96


class Cut(NamedTuple):
    """A tile of a picture: its corner (x, y) in pixels of the picture, (h, w, 3) uint8, and ids (h, w) where it has a mask."""

    corner: tuple[int, int]
    picture: np.ndarray
    mask: np.ndarray | None


def piece(picture: np.ndarray, mask: np.ndarray | None, corner: tuple[float, float], scale: float, side_px: int) -> Cut:
    """A tile whose corner is in pixels of the picture, `scale` of which make one of the tile's: pixels by area, ids by the nearest."""
    (x, y), at = corner, (round(corner[0]), round(corner[1]))
    if scale == 1:
        inside = np.s_[at[1] : at[1] + side_px, at[0] : at[0] + side_px]
        return Cut(
            at, np.ascontiguousarray(picture[inside]), None if mask is None else np.ascontiguousarray(mask[inside])
        )
    height, width = picture.shape[:2]
    box = (x, y, min(x + side_px * scale, width), min(y + side_px * scale, height))
    how = Image.Resampling.BOX if scale > 1 else Image.Resampling.BICUBIC
    tile = np.asarray(Image.fromarray(picture).resize((side_px, side_px), how, box=box))
    if mask is None:
        return Cut(at, tile, None)
    columns, rows = (
        np.clip((start + (np.arange(side_px) + 0.5) * scale).astype(int), 0, length - 1)
        for start, length in ((x, width), (y, height))
    )
    return Cut(at, tile, mask[np.ix_(rows, columns)])


def contact_sheet(tiles: list[np.ndarray]) -> Image.Image:
    """Tiles beside each other, on white."""
    side = min(_SHOWN_PX, tiles[0].shape[0])
    columns = min(SHEET, len(tiles))
    sheet = Image.new("RGB", (columns * side, -(-len(tiles) // columns) * side), (255, 255, 255))
    for place, tile in enumerate(tiles):
        shown = Image.fromarray(tile).resize((side, side), Image.Resampling.BOX)
        sheet.paste(shown, (place % columns * side, place // columns * side))
    return sheet
