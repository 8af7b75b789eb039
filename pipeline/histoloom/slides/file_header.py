"""The header of a picture's file, read before a pixel is decoded."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from histoloom.slides.pieces import as_page, fault_of_pieces
from histoloom.slides.pixel_format import PixelFormat

_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_COLOURS = {0: "inverted grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}
_TIFF_NUMBERS = {1: "unsigned", 2: "signed", 3: "float"}
_RGB_ONCE_DECODED = (6, 7, 33003, 33004, 33005, 34712, 50001)
"""TIFF compressions whose decoders turn YCbCr into RGB: JPEG, JPEG 2000, WebP."""
LOSSLESS = (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000)
"""TIFF compressions."""
_PIECEWISE = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 50001)
"""TIFF compressions that libvips reads; others are decoded at once."""
_PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey", 6: "RGB"}
_PILLOW_COLOURS = {"1": "grey", "L": "grey", "P": "palette", "RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB"}


UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, SyntaxError, TypeError, ValueError,
    struct.error,
)  # fmt: skip
"""What libraries raise of damaged files: a header may hold anything, and they take it for what it should hold."""


def read_format(path: Path) -> PixelFormat:
    """Read the header of a picture.

    Raises
    ------
    OSError
        when it is no picture.
    """
    try:
        found = _tiff_format(path) if is_tiff(path) else _plain_format(path)
    except UNREADABLE as error:
        raise OSError(f"its header cannot be read: {error}") from error
    if min(found.width, found.height) < 1:
        raise OSError("its header states no size")
    return found


def is_tiff(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(4) in _TIFF_HEADS


@contextmanager
def pictures_of_any_size() -> Iterator[None]:
    """Let Pillow open large pictures: their size is asked before a pixel is decoded."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _plain_format(path: Path) -> PixelFormat:
    with pictures_of_any_size(), Image.open(path) as image:
        kind, info = image.format or "unknown", image.info
        bits, colours = 8, _PILLOW_COLOURS.get(image.mode, image.mode)
        if kind == "PNG":
            with path.open("rb") as stream:
                bits, colour_type = stream.read(26)[24:]
            colours = _PNG_COLOURS[colour_type]
        return PixelFormat(
            kind="JPEG" if kind == "MPO" else kind,
            width=image.width,
            height=image.height,
            colours=colours,
            bits=bits,
            extra="alpha" if image.mode in ("LA", "RGBA", "PA") or "transparency" in info else "",
            orientation=Image.Image.getexif(image).get(0x0112) or 1,  # PNG's own decodes the whole picture
            pictures=getattr(image, "n_frames", 1),
            lossless=kind == "PNG",
            aspect=_aspect(info.get("aspect") or info.get("jfif_density") or info.get("dpi")),
            palette=_pillow_palette(image) if colours == "palette" else None,
            at_once=bool(info.get("interlace") or info.get("progressive") or kind == "WEBP"),
        )


def _pillow_palette(image: Image.Image) -> np.ndarray:
    return np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)


def _aspect(density: tuple[float, float] | None) -> float:
    """Width of a pixel by its height, of pixels per length along and down."""
    along, down = (float(value) for value in density or (1, 1))
    return down / along if 0 < along < math.inf and 0 < down < math.inf else 1.0


def _tiff_format(path: Path) -> PixelFormat:
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        photometric, compression = int(page.photometric), int(page.compression)
        colours = _TIFF_COLOURS.get(photometric, f"of TIFF's photometric interpretation {photometric}")
        if colours == "YCbCr" and compression in _RGB_ONCE_DECODED:
            colours = "RGB"
        bits = page.bitspersample if isinstance(page.bitspersample, int) else max(page.bitspersample)
        orientation = int(page.tags.valueof(274, 1))
        beyond = compression not in _PIECEWISE or bits == 64 or orientation == 0
        return PixelFormat(
            kind="TIFF",
            width=int(page.imagewidth),
            height=int(page.imagelength),
            colours=colours,
            bits=bits,
            number=_TIFF_NUMBERS.get(int(page.sampleformat or 1), "of no known kind"),
            extra=_tiff_extra(page, 3 if colours == "RGB" else 1),
            orientation=orientation or 1,
            broken="the file breaks off. Copy it again." if _breaks_off(file) else fault_of_pieces(file),
            pictures=sum(_is_picture(as_page(other), page) for other in file.pages),
            lossless=compression in LOSSLESS,
            aspect=_aspect((_ratio(page.tags.valueof(282)), _ratio(page.tags.valueof(283)))),
            palette=_tiff_palette(page) if colours == "palette" else None,
            tiled=page.is_tiled,
            at_once=beyond and not page.is_tiled,
            beyond_libvips=beyond,
        )


def _breaks_off(file: tifffile.TiffFile) -> bool:
    if file.is_ndpi:  # which counts offsets in its own way
        return False
    handle, size = file.filehandle, file.tiff.offsetsize
    after_last = file.pages.next_page_offset
    if after_last is None:
        raise ValueError("its list of pages has no end")
    handle.seek(after_last)
    return handle.read(size) != bytes(size)


def _is_picture(page: tifffile.TiffPage, first: tifffile.TiffPage) -> bool:
    """Whether a page is the first, or another as large that isn't a level of it."""
    as_large = page.imagewidth * page.imagelength >= first.imagewidth * first.imagelength
    return page.index == first.index or (as_large and not page.is_reduced and not page.is_mask)


def _tiff_extra(page: tifffile.TiffPage, colours: int) -> str:
    more = page.samplesperpixel - colours
    if more < 0:
        raise ValueError(f"{page.samplesperpixel} channel(s) are too few for its colours")
    if more == 1 and page.extrasamples and int(page.extrasamples[0]) in (1, 2):
        return "alpha"
    return f"{more} more channel(s)" if more > 0 else ""


def _ratio(value: tuple[int, int] | float | None) -> float:
    """Of a fraction, or of a number that some writers state in its place."""
    above, below, *_ = (*value, 1) if isinstance(value, tuple) else (value or 0, 1)
    return above / below if below else 0.0


def _tiff_palette(page: tifffile.TiffPage) -> np.ndarray | None:
    """(n, 3) uint8; None of colours that have more than 8 bits."""
    if page.colormap is None or page.bitspersample > 8:
        return None
    wide = np.asarray(page.colormap, np.uint16).T
    if wide.max(initial=0) < 256:
        return wide.astype(np.uint8)
    narrow = wide >> 8
    exact = (wide == narrow * 257).all() or (wide == narrow * 256).all()
    return narrow.astype(np.uint8) if exact else None
