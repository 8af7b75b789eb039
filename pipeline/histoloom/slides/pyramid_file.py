"""A finished BigTIFF pyramid of ours, read again: its levels, its scale and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from histoloom.data.slide_entry import PREDICTION
from histoloom.errors import HistoloomError
from histoloom.slides.file_header import is_tiff, read_format
from histoloom.slides.pieces import as_page
from histoloom.slides.woven import FACTS

_OURS = "Name a pyramid that histoloom wrote: slide.tif, condition.tif, deviation.tif, mask.tif or certainty.tif."
_IDS = ("condition.tif", "mask.tif")
"""Files whose pixels are class ids."""


@dataclass(frozen=True)
class PyramidFile:
    """An open pyramid.

    levels : a page each, half as high and wide as the one before, uint8 of one or three channels.
    mpp : µm/px of the first. note : its description.
    classes : of class ids, the names of the ids 1, 2, ...; empty for other pictures.
    """

    path: Path
    file: tifffile.TiffFile
    levels: tuple[tifffile.TiffPage, ...]
    mpp: float
    note: str
    classes: tuple[str, ...]

    @property
    def channels(self) -> tuple[str, ...]:
        """What its channels hold."""
        if self.levels[0].samplesperpixel == 3:
            return ("red", "green", "blue")
        return ("class ids",) if self.classes else (self.path.stem,)

    def compressed(self, level: int) -> Iterator[bytes]:
        """The tiles of a level as they stand in the file, row by row."""
        page, handle = self.levels[level], self.file.filehandle
        for offset, count in zip(page.dataoffsets, page.databytecounts):
            handle.seek(offset)
            yield handle.read(count)


@contextmanager
def open_pyramid(path: Path) -> Iterator[PyramidFile]:
    """Open a pyramid that `write_pyramid` wrote.

    Raises
    ------
    HistoloomError
        when it is no such file.
    """
    try:
        if not is_tiff(path):
            raise HistoloomError(f"{path} is no TIFF. {_OURS}")
        if broken := read_format(path).broken:
            raise HistoloomError(f"{path}: {broken}")
        with tifffile.TiffFile(path) as file:
            levels = tuple(as_page(page) for page in file.pages)
            if fault := _fault(levels):
                raise HistoloomError(f"{path} {fault}. {_OURS}")
            yield PyramidFile(path, file, levels, _mpp(levels[0]), levels[0].description, _classes(path))
    except (OSError, tifffile.TiffFileError) as error:
        raise HistoloomError(f"{path} can't be read: {error}. {_OURS}") from error


def _fault(levels: tuple[tifffile.TiffPage, ...]) -> str:
    first = levels[0]
    if not all(page.is_tiled and page.dtype == np.uint8 and page.samplesperpixel in (1, 3) for page in levels):
        return "doesn't consist of tiles of 8 bits, with one or three channels"
    if any(page.jpegtables or page.tile != first.tile or page.compression != first.compression for page in levels):
        return "has tiles of another form"
    halves = [(max(1, page.shape[0] // 2), max(1, page.shape[1] // 2)) for page in levels]
    if [page.shape[:2] for page in levels[1:]] != halves[:-1]:
        return "has other pages than levels, each half as large as the one before"
    return "" if first.tags.valueof(282) and first.tags.valueof(296) == 3 else "states no scale in px per cm"


def _mpp(page: tifffile.TiffPage) -> float:
    above, below = page.tags.valueof(282)
    return float(f"{1e4 * below / above:.6g}")


def _classes(path: Path) -> tuple[str, ...]:
    """Of class ids, as the file beside it states them."""
    if path.name not in _IDS:
        return ()
    for stated in (FACTS, PREDICTION):
        if (path.parent / stated).is_file():
            return tuple(json.loads((path.parent / stated).read_text(encoding="utf-8"))["classes"])
    return ()
