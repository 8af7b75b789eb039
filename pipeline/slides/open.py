"""One door for slides: SVS, NDPI, MRXS and pyramidal TIFF through OpenSlide, plain TIFF, PNG and JPEG through Pillow."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import openslide
from PIL import Image

from pipeline.data.commit import digest, hash_tree
from pipeline.errors import HistoloomError

_READERS = 2  # OpenSlide decodes without the interpreter's lock
_READ_AHEAD = 4


class BadSlide(HistoloomError):
    """A slide that cannot be used; `tile` quarantines it with this reason."""


def slide_sha256(path: Path) -> str:
    """Of a slide's file, and of the folder of the same name beside it, where MIRAX keeps the pixels."""
    beside = path.with_suffix("")
    return digest([hash_tree(path), hash_tree(beside) if path.suffix.lower() == ".mrxs" and beside.is_dir() else None])


@dataclass
class Slide:
    """An open slide. Coordinates are level-0 pixels, `mpp` is µm per level-0 pixel.

    Label and macro images are never read.
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
    def bounds(self) -> tuple[int, int, int, int]:
        """x, y, width and height of what was scanned, at level 0; the whole slide where the file states none.

        QuPath shows this part alone, and counts its coordinates from there.
        """
        whole = {"x": 0, "y": 0, "width": self.width, "height": self.height}
        stated = (self.handle.properties.get(f"openslide.bounds-{name}", value) for name, value in whole.items())
        try:
            x, y, width, height = map(int, stated)
        except ValueError:
            return 0, 0, *self.size
        inside = 0 <= x < self.width and 0 <= y < self.height and width > 0 and height > 0
        return (x, y, min(width, self.width - x), min(height, self.height - y)) if inside else (0, 0, *self.size)

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height

    def shrinkage(self, downsample: float) -> float:
        """Pixels of the best level per pixel of a result at this downsample; at least 1."""
        level = self.handle.get_best_level_for_downsample(downsample * 1.001)
        return max(1.0, downsample / self.handle.level_downsamples[level])

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_) -> None:
        self.handle.close()

    def read(
        self, x_level0_px: float, y_level0_px: float, width_px: int, height_px: int, downsample: float
    ) -> np.ndarray:
        """Read a region resampled from the best level, transparent parts as white glass.

        Parameters
        ----------
        x_level0_px, y_level0_px : upper left corner; may be fractional.
        width_px, height_px : size of the result.
        downsample : level-0 pixels per pixel of the result.

        Returns
        -------
        (height_px, width_px, 3) uint8

        Raises
        ------
        BadSlide
            when the file breaks off or holds damaged data.
        """
        level = self.handle.get_best_level_for_downsample(downsample * 1.001)
        scale = self.handle.level_downsamples[level]
        x0, y0 = math.floor(x_level0_px), math.floor(y_level0_px)
        left, top = (x_level0_px - x0) / scale, (y_level0_px - y0) / scale
        box = (left, top, left + width_px * downsample / scale, top + height_px * downsample / scale)
        try:
            region = self.handle.read_region((x0, y0), level, (math.ceil(box[2]), math.ceil(box[3])))
        except (openslide.OpenSlideError, OSError, SyntaxError, ValueError) as error:
            raise BadSlide(f"{self.path.name}: reading at ({x0}, {y0}) failed: {error}") from error
        rgb, size = _on_glass(region), (width_px, height_px)
        if box != (0, 0, *size):
            how = Image.Resampling.BOX if downsample / scale > 1.001 else Image.Resampling.BICUBIC
            rgb = rgb.resize(size, how, box=box)
        return np.asarray(rgb)


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
def read_ahead(
    slide: Slide, boxes: Sequence[tuple[float, float, int, int]], downsample: float
) -> Iterator[Iterator[np.ndarray]]:
    """Read boxes (x_level0_px, y_level0_px, width_px, height_px) on threads, while the caller works on earlier ones.

    Yields
    ------
    An iterator of pictures (height_px, width_px, 3) uint8 in the order of the boxes; few are read before they are
    asked for.
    """
    with ThreadPoolExecutor(_READERS, thread_name_prefix="slide-reader") as pool:
        waiting: deque[Future] = deque()

        def pictures() -> Iterator[np.ndarray]:
            for box in boxes:
                waiting.append(pool.submit(slide.read, *box, downsample))
                if len(waiting) > _READ_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

        try:
            yield pictures()
        finally:
            pool.shutdown(cancel_futures=True)


def open_slide(path: Path, mpp: float | None = None, max_gpx: float = 40.0) -> Slide:
    """Open a slide.

    Parameters
    ----------
    mpp : µm/px at level 0 as the manifest states it; it wins over the file's own.
    max_gpx : refuse larger slides, in gigapixels at level 0.

    Raises
    ------
    BadSlide
        when the file is no image, is empty, breaks off, is too large, or has no scale anywhere.
    """
    if path.stat().st_size == 0:
        raise BadSlide(f"{path.name}: the file is empty. Copy it again.")
    try:
        handle = openslide.open_slide(str(path))
    except (openslide.OpenSlideError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadSlide(
            f"{path.name}: neither a slide that OpenSlide reads nor a plain image ({error}). "
            "Copy it again, or convert it to a pyramidal TIFF."
        ) from error
    width, height = handle.dimensions
    if width * height > max_gpx * 1e9:
        handle.close()
        raise BadSlide(f"{path.name}: {width} x {height} px is over tile.max_slide_gpx ({max_gpx}).")
    if mpp is not None:
        return Slide(path, handle, mpp, "manifest")
    found = _file_mpp(handle)
    if found is None:
        handle.close()
        raise BadSlide(f"{path.name}: the file doesn't tell its scale. State 'mpp' (µm/px at level 0) in the manifest.")
    return Slide(path, handle, found, "file")


def _file_mpp(handle: openslide.AbstractSlide) -> float | None:
    values = []
    for key in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y):
        try:
            values.append(float(handle.properties[key]))
        except (KeyError, ValueError):
            return None
    mpp = sum(values) / 2
    return mpp if 0.01 <= mpp <= 100 else None
