"""What a picture's file says of its pixels, before one is decoded, and why they can't be read exactly."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from histoloom.errors import HistoloomError
from histoloom.slides.pieces import fault_of_pieces

PLAIN_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
WHOLE_PX = 2**28
"""What can't be decoded piece by piece is refused above this; it is the largest WebP."""

_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_TIFF_COLOURS = {0: "inverted grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB"}
_TIFF_NUMBERS = {1: "unsigned", 2: "signed", 3: "float"}
_RGB_ONCE_DECODED = (6, 7, 33003, 33004, 33005, 34712, 50001)
"""TIFF compressions whose decoders turn YCbCr into RGB: JPEG, JPEG 2000, WebP."""
_LOSSLESS = (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000)
_PIECEWISE = (1, 2, 3, 4, 5, 6, 7, 8, 32773, 32946, 50001)
"""TIFF compressions that libvips reads; others are decoded at once."""
_PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey", 6: "RGB"}
_PILLOW_COLOURS = {"1": "grey", "L": "grey", "P": "palette", "RGB": "RGB", "RGBA": "RGB", "RGBX": "RGB"}


UNREADABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)
"""What libraries raise of damaged files: a header may hold anything, and they take it for what it should hold."""


class BadSlide(HistoloomError):
    """A slide that cannot be used; `tile` quarantines it with this reason."""


@dataclass(frozen=True)
class PixelFormat:
    """What a file's header says of its first picture.

    colours : "RGB", "grey" and "palette" can be read; what else the file says stands as its name.
    number : "unsigned", "signed" or "float" samples of so many bits.
    extra : "" or "alpha", or what other channels there are.
    orientation : as Exif counts it; 1 is upright.
    broken : what of the file's own tables can't be, with the remedy.
    pictures : of this size or larger, smaller levels and previews left out.
    aspect : width of a pixel by its height.
    palette : (n, 3) uint8, of "palette".
    tiled : whether boxes are read from the file itself.
    at_once : whether it can't be decoded piece by piece.
    beyond_libvips : whether another library must decode what has no tiles.
    """

    kind: str
    width: int
    height: int
    colours: str
    bits: int = 8
    number: str = "unsigned"
    extra: str = ""
    orientation: int = 1
    broken: str = ""
    pictures: int = 1
    lossless: bool = True
    aspect: float = 1.0
    palette: np.ndarray | None = None
    tiled: bool = False
    at_once: bool = False
    beyond_libvips: bool = False

    @property
    def channels(self) -> int:
        """Of a mask: a palette's index is one, whatever its colours are."""
        if self.colours == "palette":
            return 1
        return {"RGB": 3, "YCbCr": 3, "CIELAB": 3, "CMYK": 4}.get(self.colours, 1) + (self.extra == "alpha")


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


def fault_of_rgb(found: PixelFormat) -> str | None:
    """Why a plain picture can't be read exactly as 8-bit RGB, and the remedy."""
    if fault := _fault_of_picture(found) or fault_of_samples(found):
        return fault
    if found.extra not in ("", "alpha"):
        return f"it has {found.extra} beside its {found.colours}. Save it as 8-bit RGB alone."
    return None


def fault_of_samples(found: PixelFormat) -> str | None:
    """Why a slide's samples aren't 8-bit RGB or grey, and the remedy."""
    if found.colours not in ("RGB", "grey", "inverted grey", "palette"):
        return f"its colours are {found.colours}. Save it as 8-bit RGB."
    if found.colours == "palette" and found.palette is not None:
        return None
    if (found.bits, found.number) != (8, "unsigned") or found.colours == "palette":
        return f"its {found.colours} samples are {found.number}, of {found.bits} bits. Save it as 8-bit RGB."
    return None


def fault_of_ids(found: PixelFormat) -> str | None:
    """Why a picture can't be read exactly as whole numbers, one a pixel, and the remedy."""
    if not found.lossless:
        return "its compression is lossy, which changes ids. Save it as PNG, or as TIFF with deflate."
    if found.colours not in ("grey", "palette") or (found.extra and found.colours != "palette"):
        beside = f" with {found.extra}" if found.extra else ""
        return f"it is {found.colours}{beside}. A mask has one channel, whose values are the ids."
    if found.bits > (8 if found.colours == "palette" else 64 if found.number == "float" else 32):
        return f"its {found.colours} samples are {found.number}, of {found.bits} bits. Save it with 8, 16 or 32."
    if found.colours == "palette" and found.width * found.height > WHOLE_PX:
        return f"palettes are read up to {WHOLE_PX / 1e9:.2f} gigapixels. Save it as grey, whose values are the ids."
    return _fault_of_picture(found) or fault_of_size(found)


def _fault_of_picture(found: PixelFormat) -> str | None:
    if found.kind not in PLAIN_FORMATS:
        return f"it is {found.kind}. Save it as {', '.join(PLAIN_FORMATS[:-1])} or WebP."
    if found.broken:
        return found.broken
    if found.orientation != 1:
        return (
            f"its Orientation tag says that it is to be turned ({found.orientation}). Save it upright, without the tag."
        )
    if found.pictures != 1:
        return f"it holds {found.pictures} pictures, and one would be read. Save the one that is meant."
    return None


def fault_of_size(found: PixelFormat) -> str | None:
    """Why a picture can't be decoded in little memory, and the remedy."""
    if not found.at_once or found.width * found.height <= WHOLE_PX:
        return None
    return (
        f"{found.width} x {found.height} px of this kind must be decoded at once, and {WHOLE_PX / 1e9:.2f} gigapixels "
        "are the most. Save it without interlacing (PNG, JPEG), or as TIFF with deflate and tiles of 256 px."
    )


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
            pictures=sum(isinstance(other, tifffile.TiffPage) and _is_picture(other, page) for other in file.pages),
            lossless=compression in _LOSSLESS,
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
    handle.seek(file.pages.next_page_offset or 0)
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
