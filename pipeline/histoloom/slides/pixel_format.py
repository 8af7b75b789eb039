"""What a picture's file says of its pixels, before one is decoded, and why they can't be read exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PLAIN_FORMATS = ("PNG", "JPEG", "TIFF", "WEBP")
WHOLE_PX = 2**28
"""What can't be decoded piece by piece is refused above this; it is the largest WebP."""


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
