"""The tiles and strips of a TIFF: whether its tables can be right, and tiles decoded one by one.

libvips fills a tile that it can't decode with zeros, so tiles that OpenSlide doesn't read are decoded here.
"""

from __future__ import annotations

from functools import lru_cache, partial
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import tifffile

from histoloom.data.pixel_box import PixelBox

_TILE_PX = 2**26
_KEPT_BYTES = 2**26
"""Of decoded tiles: a row of them, up to slides of 80,000 px in colour."""


def fault_of_pieces(file: tifffile.TiffFile) -> str:
    """What of a TIFF's tables of tiles and strips can't be, with the remedy; "" of none.

    A piece of no bytes is none here: scanners leave out tiles of glass.
    """
    if file.is_ndpi:  # which counts offsets in its own way
        return ""
    for page in map(as_page, file.pages):
        if page.is_tiled and page.tilewidth * page.tilelength > _TILE_PX:
            return (
                f"its tiles have {page.tilewidth} x {page.tilelength} px, and {_TILE_PX / 1e6:.0f} megapixels are the most. "
                "Save it with tiles of 256 px."
            )
        offsets, counts = (np.array(each, float) for each in (page.dataoffsets, page.databytecounts))
        pieces = prod(page.chunked)
        if not pieces <= len(offsets) == len(counts):
            return (
                f"its tables have {len(offsets)} places and {len(counts)} lengths of {pieces} tiles or strips. "
                "Write it anew from its source."
            )
        if (offsets + counts).max(initial=0) > file.filehandle.size:
            return "the file breaks off. Copy it again."
    return ""


def as_page(page: tifffile.TiffPage | tifffile.TiffFrame) -> tifffile.TiffPage:
    """A page with all of its tags.

    Raises
    ------
    ValueError
        of a frame, which tifffile makes of the pages of some kinds of files.
    """
    if not isinstance(page, tifffile.TiffPage):
        raise ValueError("its pages are read as frames, without their tags")
    return page


class Tiles:
    """The samples of a tiled TIFF's first picture as its file has them. Reading from several threads is safe."""

    def __init__(self, path: Path):
        with tifffile.TiffFile(path) as file:
            page = self._page = file.pages.first
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}
        self._grid = page.imagelength // -page.tilelength * -1, page.imagewidth // -page.tilewidth * -1
        separate = int(page.planarconfig) == 2
        self._planes, samples = (page.samplesperpixel, 1) if separate else (1, page.samplesperpixel)
        if missing := page.databytecounts[: self._planes * prod(self._grid)].count(0):
            raise OSError(f"{missing} of its tiles are not in the file: write it with all of them")
        dtype = np.dtype(np.uint8 if page.bitspersample == 1 else page.dtype).newbyteorder("=")
        self._like = np.empty((0, 0, 0, samples), dtype)
        tile_bytes = page.tilelength * page.tilewidth * samples * dtype.itemsize
        self._tile = lru_cache(max(1, _KEPT_BYTES // tile_bytes))(partial(_decoded, path, page, tables))

    def read(self, box: PixelBox[int]) -> np.ndarray:
        """(height, width, channels) of a box inside the picture."""
        x, y, width, height = box
        tall, wide = self._page.tilelength, self._page.tilewidth
        out = np.empty((self._planes, height, width, self._like.shape[-1]), self._like.dtype)
        rows, columns = range(y // tall, (y + height - 1) // tall + 1), range(x // wide, (x + width - 1) // wide + 1)
        for plane, row, column in product(range(self._planes), rows, columns):
            tile = self._tile((plane * self._grid[0] + row) * self._grid[1] + column)
            top, left = row * tall - y, column * wide - x
            part = tile[max(0, -top) : height - top, max(0, -left) : width - left]
            top, left = max(0, top), max(0, left)
            out[plane, top : top + part.shape[0], left : left + part.shape[1]] = part
        return np.moveaxis(out, 0, 2).reshape(height, width, -1)


def _decoded(path: Path, page: tifffile.TiffPage, tables: dict, number: int) -> np.ndarray:
    """(h, w, samples) of one tile. The file is opened for each, so that none stays open for each mask of a study."""
    with path.open("rb") as stream:
        stream.seek(page.dataoffsets[number])
        data = stream.read(page.databytecounts[number])
    if len(data) < page.databytecounts[number]:
        raise OSError("the file breaks off")
    tile = page.decode(data, number, **tables, _fullsize=True)[0]
    assert tile is not None, "it has bytes"
    return tile[0]
