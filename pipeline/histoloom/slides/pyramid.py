"""A picture to a tiled BigTIFF pyramid that OpenSlide and QuPath open: one page a level, its scale in the tags.

Nothing of a patient or a source is written: the tags are those of the format.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from histoloom.data.pixel_box import PixelBox

ReadBox = Callable[[PixelBox[int]], np.ndarray]
"""A box to its pixels, (h, w, 3) in colour or (h, w, 1) of class ids; a box is cut where the picture ends."""


@dataclass(frozen=True)
class RasterFile:
    """A picture larger than memory: rows of uint8 pixels, one after the other. What was never written is zero.

    Two tasks may write different boxes at once; mapped memory would count as the process's own, so it isn't used.
    """

    path: Path
    height: int
    width: int
    channels: int

    def create(self) -> RasterFile:
        with self.path.open("wb") as stream:
            stream.truncate(self.height * self.width * self.channels)
        return self

    def write(self, pixels: np.ndarray, *, left: int, top: int) -> None:
        """Write (h, w, channels) pixels at an upper left corner."""
        rows = np.ascontiguousarray(pixels)
        with self.path.open("r+b", buffering=0) as stream:
            for number, row in enumerate(rows):
                os.pwrite(stream.fileno(), row.tobytes(), self._offset(top + number, left))

    def read(self, box: PixelBox[int]) -> np.ndarray:
        """(h, w, channels) pixels of a box, cut where the picture ends."""
        height, width = min(box.height, self.height - box.top), min(box.width, self.width - box.left)
        out = np.empty((height, width, self.channels), np.uint8)
        with self.path.open("rb", buffering=0) as stream:
            for number, row in enumerate(out):
                data = os.pread(stream.fileno(), row.nbytes, self._offset(box.top + number, box.left))
                row[:] = np.frombuffer(data, np.uint8).reshape(row.shape)
        return out

    def _offset(self, row: int, column: int) -> int:
        return (row * self.width + column) * self.channels


@dataclass(frozen=True)
class PyramidPicture:
    """A picture that is read in boxes; of class ids, a coarser level takes every other.

    size : (height, width), px.
    mpp : µm/px.
    note : what readers show as the file's description, ASCII.
    """

    read: ReadBox
    size: tuple[int, int]
    mpp: float
    note: str = ""


@dataclass(frozen=True)
class TiffFormat:
    """How pixels are written: the side of a tile, 'jpeg' or 'deflate', and JPEG's quality."""

    tile_px: int = 256
    compression: Literal["jpeg", "deflate"] = "jpeg"
    quality: int = 90

    @property
    def codec(self) -> dict[str, Any]:
        """As tifffile takes it."""
        if self.compression == "jpeg":
            return {"compression": "jpeg", "compressionargs": {"level": self.quality}}
        return {"compression": "adobe_deflate", "compressionargs": {}}


JPEG = TiffFormat()


def write_pyramid(
    path: Path,
    picture: PyramidPicture,
    form: TiffFormat = JPEG,
    *,
    scratch: Path,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Stream a picture into a pyramid whose levels halve until one tile holds the last.

    Parameters
    ----------
    scratch : an empty folder for the coarser levels, while they are being made.
    advance : called for each tile.
    """
    read, mpp, size = picture.read, picture.mpp, picture.size
    channels = read(PixelBox(0, 0, 1, 1)).shape[2]
    sizes = level_sizes(size, form.tile_px)
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level, (height, width) in enumerate(sizes):
            coarser = None
            if level + 1 < len(sizes):
                coarser = RasterFile(scratch / f"level-{level + 1}", *sizes[level + 1], channels).create()
            writer.write(
                _tiles(read, (height, width), form.tile_px, coarser, advance),
                shape=(height, width, channels) if channels == 3 else (height, width),
                dtype=np.uint8,
                tile=(form.tile_px, form.tile_px),
                photometric="rgb" if channels == 3 else "minisblack",
                **form.codec,
                subfiletype=int(level > 0),
                resolution=(1e4 / (mpp * size[1] / width), 1e4 / (mpp * size[0] / height)),
                resolutionunit="CENTIMETER",
                description=picture.note if picture.note and level == 0 else None,
                metadata=None,
                software=False,
            )
            if coarser is not None:
                read = coarser.read
            (scratch / f"level-{level}").unlink(missing_ok=True)


def level_sizes(size: tuple[int, int], tile_px: int) -> list[tuple[int, int]]:
    """(height, width) of each level."""
    out = [size]
    while max(out[-1]) > tile_px:
        out.append((max(1, out[-1][0] // 2), max(1, out[-1][1] // 2)))
    return out


def _tiles(
    read: ReadBox, size: tuple[int, int], tile_px: int, coarser: RasterFile | None, advance: Callable[[], None]
) -> Iterator[np.ndarray]:
    """A level's tiles in the order of the file, filled up at its borders; on the way the next level is written."""
    for top in range(0, size[0], tile_px):
        for left in range(0, size[1], tile_px):
            pixels = read(PixelBox(left, top, tile_px, tile_px))
            if coarser is not None:
                half = _halved(pixels)[: coarser.height - top // 2, : coarser.width - left // 2]
                coarser.write(half, left=left // 2, top=top // 2)
            beyond = [(0, tile_px - side) for side in pixels.shape[:2]]
            advance()
            filled = np.pad(pixels, (*beyond, (0, 0)), mode="edge")
            yield filled if filled.shape[2] == 3 else filled[..., 0]


def _halved(pixels: np.ndarray) -> np.ndarray:
    """Half as high and wide, colours averaged and class ids taken from every other pixel."""
    even = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
    if even.shape[2] == 1:
        return even[::2, ::2]
    h, w, c = even.shape
    return even.reshape(h // 2, 2, w // 2, 2, c).mean((1, 3), dtype=np.float32).round().astype(np.uint8)
