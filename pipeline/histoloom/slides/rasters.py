"""Masks as large as their slides: ids in boxes, each as its file states it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from histoloom.data.pixel_box import PixelBox
from histoloom.slides.file_header import UNREADABLE, pictures_of_any_size, read_format
from histoloom.slides.pixel_format import PixelFormat, fault_of_ids
from histoloom.slides.plain import Pixels
from histoloom.slides.slide import BadSlide

_BAND_PX = 2**23
_LARGEST = 2**31 - 1
_LARGEST_FLOAT = {16: 2**11, 32: 2**24}
"""Up to here each whole number is a float of so many bits; beyond, neighbours are one."""


class Raster:
    """Ids of a slide's pixels, read in boxes from the mask's file.

    A palette's ids are its indices. Whole numbers that a file has as floats are taken; fractions, NaN, numbers below 0 and
    such as an int32 can't hold are refused wherever they are read.
    """

    def __init__(self, path: Path, found: PixelFormat):
        self.path, self.shape = path, (found.height, found.width)
        self._found = found
        self._pixels: Pixels | None = None
        self._indices: np.ndarray | None = None
        if found.colours == "palette" and found.kind == "TIFF":  # libvips would give a palette's colours
            self._pixels = Pixels(path, replace(found, colours="grey", beyond_libvips=True))
        elif found.colours == "palette":
            self._indices = _palette_indices(path)
        else:
            self._pixels = Pixels(path, found)
        self.largest = max(int(band.max()) for band in self._bands())

    def read(self, box: PixelBox[int]) -> np.ndarray:
        """(height, width) ids, uint8, uint16 or int32, of a box inside the raster.

        Raises
        ------
        BadSlide
            when it breaks off, or holds what is no id.
        """
        if self._pixels is None:
            assert self._indices is not None, "a raster has either"
            return self._indices[box.top : box.bottom, box.left : box.right]
        try:
            samples = self._pixels.read(box)
        except OSError as error:
            raise BadSlide(f"{self.path.name}: the mask cannot be read ({error}). Copy it again.") from error
        return self._whole(samples)

    def nearest(self, box: PixelBox[float], downsample: float) -> np.ndarray:
        """Ids of a box at level 0, at the nearest pixel, borders repeated beyond; sizes are as those of `Slide.read`."""
        (x, y), (height, width) = box[:2], box.shape_at(downsample)
        columns = np.clip((x + (np.arange(width) + 0.5) * downsample).astype(int), 0, self.shape[1] - 1)
        rows = np.clip((y + (np.arange(height) + 0.5) * downsample).astype(int), 0, self.shape[0] - 1)
        left, across = int(columns[0]), int(columns[-1] - columns[0] + 1)
        step = max(1, int(_BAND_PX / (across * max(downsample, 1))))
        out = []
        for start in range(0, height, step):
            of = rows[start : start + step]
            band = self.read(PixelBox(left, int(of[0]), across, int(of[-1] - of[0] + 1)))
            out.append(band[np.ix_(of - of[0], columns - left)])
        return np.concatenate(out)

    def _bands(self) -> Iterator[np.ndarray]:
        height, width = self.shape
        rows = max(1, _BAND_PX // width)
        return (self.read(PixelBox(0, top, width, min(rows, height - top))) for top in range(0, height, rows))

    def _whole(self, samples: np.ndarray) -> np.ndarray:
        if samples.dtype in (np.uint8, np.uint16):
            return samples
        least, most = samples.min(), samples.max()  # NaN, where there is any
        largest = _LARGEST
        if samples.dtype.kind == "f":
            if not np.isfinite([least, most]).all() or (samples != np.floor(samples)).any():
                raise BadSlide(f"{self.path.name}: the mask holds numbers that aren't whole. Save it as whole numbers.")
            largest = _LARGEST_FLOAT.get(self._found.bits, _LARGEST)
        if least < 0 or most > largest:
            wrong = least if least < 0 else most
            raise BadSlide(
                f"{self.path.name}: the mask holds {wrong:.0f}. Its ids must be 0 to {largest}; number them anew."
            )
        return samples.astype(np.int32)


def read_raster(path: Path, width_px: int, height_px: int) -> Raster:
    """The ids of a mask's file, which is to have this size.

    Raises
    ------
    BadSlide
        when it has another size, can't be read, or holds what is no id.
    """
    try:
        found = read_format(path)
        if (found.width, found.height, found.channels) != (width_px, height_px, 1):
            raise BadSlide(
                f"{path.name}: the mask has {found.width} x {found.height} px and {found.channels} channel(s), its slide "
                f"{width_px} x {height_px} px. A mask has one channel and its slide's level-0 size."
            )
        fault = fault_of_ids(found)
        if fault is None:
            return Raster(path, found)
    except OSError as error:
        raise BadSlide(f"{path.name}: the mask cannot be read ({error}).") from error
    raise BadSlide(f"{path.name}: the mask can't be used: {fault}")


def _palette_indices(path: Path) -> np.ndarray:
    """(height, width) uint8 of a PNG: libvips gives a palette's colours, and two indices may share one."""
    try:
        with pictures_of_any_size(), Image.open(path) as image:
            return np.asarray(image)
    except UNREADABLE as error:
        raise OSError(str(error)) from error
