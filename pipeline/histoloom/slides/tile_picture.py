"""One picture of a set, encoded or as an array, to 8-bit RGB or to ids, exactly or refused; and tiles cut from it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import pyvips
from PIL import Image

from histoloom.data.tile_sets.read import Stored
from histoloom.slides.file_header import LOSSLESS, UNREADABLE

_MOST_PX = 2**28
_COLOURS = ("RGB", "RGBA", "L", "LA", "P", "1", "PA")
_ORIENTATION, _BITS, _COMPRESSION, _PHOTOMETRIC, _NUMBERS = 274, 258, 259, 262, 339
SHEET = 8
"""Tiles of a contact sheet, along and down."""
_SHOWN_PX = 96


class BadPicture(Exception):
    """A picture that can't be used, and why."""


def as_rgb(stored: Stored) -> np.ndarray:
    """(h, w, 3) uint8. Grey has three equal channels; transparent pixels are white glass.

    Raises
    ------
    BadPicture
        when it is broken, has other than 8 bits, or pixels that are half transparent.
    """
    if isinstance(stored, np.ndarray):
        return _of_channels(stored if stored.ndim == 3 else stored[..., None])
    with _opened(stored) as image:
        try:
            _check_colours(image, stored or b"")
            if image.format == "JPEG":
                return _of_jpeg(stored or b"")
            transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            return _of_channels(np.asarray(image.convert("RGBA" if transparent else "RGB")))
        except (OSError, *UNREADABLE) as error:
            raise BadPicture(f"it breaks off or is damaged ({error})") from None


def as_ids(stored: Stored) -> np.ndarray:
    """(h, w) unsigned ids; a palette's are its indices.

    Raises
    ------
    BadPicture
        when it is broken, has several channels, or was compressed with loss.
    """
    if isinstance(stored, np.ndarray):
        return stored.astype(np.uint8) if stored.dtype == bool else stored
    with _opened(stored) as image:
        if image.format not in ("PNG", "TIFF") or image.mode not in ("1", "L", "P", "I;16", "I;16B", "I"):
            raise BadPicture(
                f"its mask is a {image.format} of mode {image.mode}: save it as PNG with one channel of ids"
            )
        try:
            bits = (stored or b"")[24] if image.format == "PNG" else _bits_of_tiff(image)
            ids = np.asarray(image)
        except (OSError, *UNREADABLE) as error:
            raise BadPicture(f"its mask breaks off or is damaged ({error})") from None
        if image.mode == "1":
            return ids.astype(np.uint8)
        if image.mode == "L" and bits < 8:  # Pillow spreads them over 0 to 255
            return ids // (255 // (2**bits - 1))
    if ids.min() < 0:
        raise BadPicture(f"its mask holds {ids.min()}")
    return ids


def _bits_of_tiff(image: Image.Image) -> int:
    """Bits of a TIFF's ids, which must be stored without loss, and not inverted."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    if tags.get(_COMPRESSION, 1) not in LOSSLESS:
        raise BadPicture("its mask's compression loses: save it as PNG, or as TIFF with deflate")
    if tags.get(_PHOTOMETRIC) not in (1, 3):
        raise BadPicture("its mask is inverted grey: save it as PNG with one channel of ids")
    return max(tags.get(_BITS, (1,)))


def size_of(stored: Stored) -> tuple[int, int]:
    """Width and height, as the header states them.

    Raises
    ------
    BadPicture
    """
    if isinstance(stored, np.ndarray):
        return stored.shape[1], stored.shape[0]
    with _opened(stored) as image:
        return image.size


@contextmanager
def small_pictures() -> Iterator[None]:
    """Let libvips decode on one thread and keep nothing: for a tile, starting threads costs as much as decoding."""
    before = pyvips.concurrency_get()
    pyvips.concurrency_set(1)
    pyvips.cache_set_max(0)
    try:
        yield
    finally:
        pyvips.concurrency_set(before)


def _opened(stored: Stored) -> Image.Image:
    if not stored:
        raise BadPicture("it is empty")
    assert isinstance(stored, bytes)
    try:
        image = Image.open(io.BytesIO(stored))
    except (OSError, Image.DecompressionBombError, *UNREADABLE) as error:
        raise BadPicture("it is no picture that can be read" if "BytesIO" in str(error) else str(error)) from None
    if image.width * image.height > _MOST_PX:
        raise BadPicture(f"{image.width} x {image.height} px is a slide's size: state it in slides.csv")
    return image


def _check_colours(image: Image.Image, stored: bytes) -> None:
    if image.format not in ("PNG", "JPEG", "WEBP", "TIFF", "MPO"):
        raise BadPicture(f"it is {image.format}: save it as PNG, JPEG, WebP or TIFF")
    if getattr(image, "n_frames", 1) != 1:
        raise BadPicture(f"it holds {getattr(image, 'n_frames', 1)} pictures: save the one that is meant")
    bits, numbers = 8, (1,)
    if image.format == "PNG":
        bits = stored[24]
    elif image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        bits, numbers = max(tags.get(_BITS, (8,))), tags.get(_NUMBERS, (1,))
    if image.mode not in _COLOURS or bits > 8 or {*numbers} != {1}:
        raise BadPicture(f"its samples are {image.mode}, of {bits} bits: scale it to 8-bit RGB by a rule of yours")
    turned = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info or image.format == "TIFF" else 1
    if turned not in (0, 1):
        raise BadPicture(f"its Orientation tag says that it is to be turned ({turned}): save it upright")


def _of_jpeg(stored: bytes) -> np.ndarray:
    """libvips refuses what libjpeg only warns of."""
    try:
        samples = pyvips.Image.jpegload_buffer(stored, access="sequential", fail_on="warning").numpy()
    except pyvips.Error as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise BadPicture(f"it breaks off or is damaged ({lines[-1]})") from None
    return _of_channels(samples if samples.ndim == 3 else samples[..., None])


def _of_channels(samples: np.ndarray) -> np.ndarray:
    """RGB of (h, w, c) uint8: grey, grey and alpha, RGB, or RGB and alpha."""
    channels = samples.shape[2]
    colours = samples[..., [0, 0, 0]] if channels < 3 else samples[..., :3]
    if channels in (2, 4):
        alpha = samples[..., -1]
        if ((alpha > 0) & (alpha < 255)).any():
            raise BadPicture("some pixels are half transparent, so that their colour isn't stated")
        colours = np.where(alpha[..., None] == 0, np.uint8(255), colours)
    return np.ascontiguousarray(colours)


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
