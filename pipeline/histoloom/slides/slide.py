"""An open slide, read in boxes at any scale."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openslide
from PIL import Image

from histoloom.data.pixel_box import PixelBox
from histoloom.errors import HistoloomError

_READERS = (2, 8)  # OpenSlide decodes without the interpreter's lock
"""Boxes that are read beside the next one: at first, and at most where reads are slow."""
_SLOW = 3.0
"""A read is slow whose time is so many times that of its CPU: it waits for a disk or a network."""
_BAND_PX = 2**23
"""Larger boxes of level 0 are read in bands of about so much."""
_AT_ONCE_PX = 2**25
"""Larger boxes of other levels are, too; their rows lie between level-0 pixels where a level's scale is no whole number."""


class BadSlide(HistoloomError):
    """A slide that cannot be used; `tile` quarantines it with this reason."""


@dataclass
class Slide:
    """An open slide; label and macro images are never read.

    Parameters
    ----------
    mpp : µm per level-0 pixel.
    mpp_source : who says so, 'manifest' or 'file'.
    """

    path: Path
    handle: openslide.AbstractSlide
    mpp: float
    mpp_source: str

    @cached_property
    def width(self) -> int:
        return self.handle.dimensions[0]

    @cached_property
    def height(self) -> int:
        return self.handle.dimensions[1]

    @cached_property
    def bounds(self) -> PixelBox[int]:
        """What was scanned, at level 0; the whole slide where the file states nothing of it.

        QuPath shows this part alone, and counts its coordinates from there.
        """
        whole = PixelBox(0, 0, self.width, self.height)
        names = ("x", "y", "width", "height")
        stated = (self.handle.properties.get(f"openslide.bounds-{name}", side) for name, side in zip(names, whole))
        try:
            x, y, width, height = map(int, stated)
        except ValueError:
            return whole
        inside = 0 <= x < self.width and 0 <= y < self.height and width > 0 and height > 0
        return PixelBox(x, y, min(width, self.width - x), min(height, self.height - y)) if inside else whole

    @property
    def size(self) -> tuple[int, int]:
        """Width and height at level 0."""
        return self.width, self.height

    def shrinkage(self, downsample: float) -> float:
        """Pixels of the best level per pixel of a result at this downsample; at least 1."""
        level = self.handle.get_best_level_for_downsample(downsample * 1.001)
        return max(1.0, downsample / self.handle.level_downsamples[level])

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()

    def read(self, box: PixelBox[float], downsample: float) -> np.ndarray:
        """Read a box resampled from the best level, transparent parts as white glass.

        Parameters
        ----------
        box : at level 0; may begin between pixels.
        downsample : level-0 pixels per pixel of the result.

        Returns
        -------
        (height, width, 3) uint8; the box's size over `downsample`, rounded.

        Raises
        ------
        BadSlide
            when the file breaks off or holds damaged data.
        """
        level = self.handle.get_best_level_for_downsample(downsample * 1.001)
        scale = self.handle.level_downsamples[level]
        corner = math.floor(box.left), math.floor(box.top)
        left, top = (box.left - corner[0]) / scale, (box.top - corner[1]) / scale
        right, bottom = left + box.width / scale, top + box.height / scale
        size = math.ceil(right), math.ceil(bottom)
        height, width = box.shape_at(downsample)
        how = Image.Resampling.BOX if downsample / scale > 1.001 else Image.Resampling.BICUBIC
        if size[0] * size[1] <= (_AT_ONCE_PX if level else _BAND_PX):
            rgb = self._region(corner, level, size)
        else:
            rgb = self._narrowed(corner, level, size, _Across(left, right, width, how))
            left, right = 0, width
        if (left, top, right, bottom) != (0, 0, width, height):
            rgb = rgb.resize((width, height), how, box=(left, top, right, bottom))
        return np.asarray(rgb)

    def _region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """What OpenSlide reads: (x, y) of the corner are at level 0, width and height in pixels of the level."""
        try:
            return _on_glass(self.handle.read_region(corner, level, size))
        except (openslide.OpenSlideError, OSError, SyntaxError, ValueError) as error:
            # without the place: of reads at once, all fail with the handle's first error
            raise BadSlide(f"{self.path.name}: reading it failed: {error}") from error

    def _narrowed(self, corner: tuple[int, int], level: int, size: tuple[int, int], across: _Across) -> Image.Image:
        """A large region, resampled across alone, in bands; resampled down as well, it is what Pillow makes at once."""
        width, height = size
        rows = _BAND_PX // width
        rows = max(1, rows - rows % 256)  # whole rows of a slide's tiles
        out = np.empty((height, across.width, 3), np.uint8)
        scale = self.handle.level_downsamples[level]
        for top in range(0, height, rows):
            tall = min(rows, height - top)
            band = self._region((corner[0], corner[1] + round(top * scale)), level, (width, tall))
            box = (across.left, 0, across.right, tall)
            out[top : top + tall] = np.asarray(band.resize((across.width, tall), across.how, box=box))
        return Image.fromarray(out)


class _Across(NamedTuple):
    """How the rows of a region are resampled: between which borders, to which width."""

    left: float
    right: float
    width: int
    how: Image.Resampling


def _on_glass(region: Image.Image) -> Image.Image:
    if region.mode != "RGBA":
        return region.convert("RGB")
    alpha = region.getchannel("A")
    if np.asarray(alpha).min() == 255:
        return region.convert("RGB")
    glass = Image.new("RGB", region.size, (255, 255, 255))
    glass.paste(region, mask=alpha)
    return glass


@contextmanager
def read_ahead(slide: Slide, boxes: Sequence[PixelBox[float]], downsample: float) -> Iterator[Iterator[np.ndarray]]:
    """Read boxes of level 0 on threads, while the caller works on earlier ones.

    After each slow read, one box more is read at once, up to eight, so that the latency of a network's file system is paid side by side.

    Yields
    ------
    An iterator of pictures as `Slide.read` gives them, in the order of the boxes; few are read before they are asked for.
    """
    at_once, most = _READERS
    with ThreadPoolExecutor(most, thread_name_prefix="slide-reader") as pool:
        waiting: deque[Future] = deque()

        def pictures() -> Iterator[np.ndarray]:
            nonlocal at_once
            left = iter(boxes)
            while True:
                more = islice(left, 1 + at_once - len(waiting))
                waiting.extend(pool.submit(_timed, slide, box, downsample) for box in more)
                if not waiting:
                    return
                picture, slow = waiting.popleft().result()
                at_once += slow and at_once < most
                yield picture

        try:
            yield pictures()
        finally:
            pool.shutdown(cancel_futures=True)


def _timed(slide: Slide, box: PixelBox[float], downsample: float) -> tuple[np.ndarray, bool]:
    """A box, and whether its read was slow."""
    wall, cpu = time.perf_counter(), time.thread_time()
    picture = slide.read(box, downsample)
    return picture, time.perf_counter() - wall > _SLOW * (time.thread_time() - cpu)
