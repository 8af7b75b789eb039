"""One door for slides: SVS, NDPI, MRXS and tiled TIFF through OpenSlide, plain TIFF, PNG, JPEG and WebP through libvips."""

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

from histoloom.data.commit import digest, hash_tree
from histoloom.data.slide_files import slide_files
from histoloom.slides.pixel_format import (
    BadSlide,
    PixelFormat,
    fault_of_rgb,
    fault_of_samples,
    fault_of_size,
    is_tiff,
    read_format,
)
from histoloom.slides.plain import PlainSlide, check_alpha

SQUARE_WITHIN = 0.01
"""Width and height of a pixel may differ by this share: scales in files are rounded."""
GENERIC = "generic-tiff"
"""OpenSlide's name of a tiled TIFF that no scanner's maker wrote."""
_READERS = 2  # OpenSlide decodes without the interpreter's lock
_READ_AHEAD = 4
_BAND_PX = 2**23
"""Larger boxes of level 0 are read in bands of about so much."""
_AT_ONCE_PX = 2**25
"""Larger boxes of other levels are, too; their rows lie between level-0 pixels where a level's scale is no whole number."""


def slide_sha256(path: Path) -> str:
    """Of all files that hold a slide."""
    return digest([hash_tree(each) for each in slide_files(path)])


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
        whole, size = (math.ceil(box[2]), math.ceil(box[3])), (width_px, height_px)
        how = Image.Resampling.BOX if downsample / scale > 1.001 else Image.Resampling.BICUBIC
        if whole[0] * whole[1] <= (_AT_ONCE_PX if level else _BAND_PX):
            rgb = self._region(x0, y0, level, whole)
        else:
            rgb = self._narrowed(x0, y0, level, whole, (left, box[2], width_px, how))
            box = (0, top, width_px, box[3])
        if box != (0, 0, *size):
            rgb = rgb.resize(size, how, box=box)
        return np.asarray(rgb)

    def _region(self, x0: int, y0: int, level: int, size: tuple[int, int]) -> Image.Image:
        try:
            return _on_glass(self.handle.read_region((x0, y0), level, size))
        except (openslide.OpenSlideError, OSError, SyntaxError, ValueError) as error:
            raise BadSlide(f"{self.path.name}: reading at ({x0}, {y0}) failed: {error}") from error

    def _narrowed(self, x0: int, y0: int, level: int, whole: tuple[int, int], across) -> Image.Image:
        """A large region of a level, resampled across alone, in bands; resampled down as well, it is what Pillow makes at once.

        across : left and right border in the region, the width that they become, and how.
        """
        left, right, width, how = across
        rows = _BAND_PX // whole[0]
        rows = max(1, rows - rows % 256)  # whole rows of a slide's tiles
        out, scale = np.empty((whole[1], width, 3), np.uint8), self.handle.level_downsamples[level]
        for top in range(0, whole[1], rows):
            height = min(rows, whole[1] - top)
            band = self._region(x0, y0 + round(top * scale), level, (whole[0], height))
            out[top : top + height] = band.resize((width, height), how, box=(left, 0, right, height))
        return Image.fromarray(out)


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
    handle, aspect = _opened(path, max_gpx)
    try:
        return Slide(path, handle, *_scale(path.name, handle, aspect, mpp))
    except BadSlide:
        handle.close()
        raise


def _opened(path: Path, max_gpx: float) -> tuple[openslide.AbstractSlide, float]:
    """The open file, and the width of its pixels by their height as far as it is a plain picture."""
    try:
        found = read_format(path) if is_tiff(path) else None
        if found and found.broken:  # OpenSlide asks for as much memory as it is told
            raise BadSlide(f"{path.name}: {found.broken}")
        kind = openslide.OpenSlide.detect_format(str(path))
        if kind is None or (
            kind == GENERIC and found and found.extra and found.colours.endswith("grey")
        ):  # which OpenSlide skews
            return _plain(path, max_gpx)
        try:
            handle = openslide.OpenSlide(str(path))
        except openslide.OpenSlideError:
            if kind != GENERIC:  # whose compression OpenSlide may lack
                raise
            return _plain(path, max_gpx)
        try:
            _check_size(path.name, handle.dimensions, max_gpx)
            return handle, 1.0 if found is None else _check_tags(path, found, kind)
        except (BadSlide, OSError):
            handle.close()
            raise
    except (openslide.OpenSlideError, OSError) as error:
        raise BadSlide(
            f"{path.name}: neither a slide that OpenSlide reads nor a plain image ({error}). "
            "Copy it again, or convert it to a pyramidal TIFF."
        ) from error


def _plain(path: Path, max_gpx: float) -> tuple[PlainSlide, float]:
    found = read_format(path)
    _check_size(path.name, (found.width, found.height), max_gpx)
    if fault := fault_of_rgb(found) or fault_of_size(found):
        raise BadSlide(f"{path.name}: {fault}")
    check_alpha(path, found)
    return PlainSlide(path, found), found.aspect


def _check_size(name: str, size: tuple[int, int], max_gpx: float) -> None:
    if size[0] * size[1] > max_gpx * 1e9:
        raise BadSlide(f"{name}: {size[0]} x {size[1]} px is over tile.max_slide_gpx ({max_gpx} gigapixels).")


def _check_tags(path: Path, found: PixelFormat, kind: str) -> float:
    """Refuse a TIFF that OpenSlide would cut to 8 bits, turn from CMYK or read in part; its pixels' aspect."""
    generic = kind == GENERIC
    if fault := fault_of_rgb(found) if generic else fault_of_samples(found):
        raise BadSlide(f"{path.name}: {fault}")
    if generic:
        check_alpha(path, found)
    return found.aspect if generic else 1.0


def _scale(name: str, handle: openslide.AbstractSlide, aspect: float, stated: float | None) -> tuple[float, str]:
    """µm per level-0 pixel, and who says so.

    Raises
    ------
    BadSlide
        when nobody says so, or pixels aren't square.
    """
    along, down = (_positive(handle, key) for key in (openslide.PROPERTY_NAME_MPP_X, openslide.PROPERTY_NAME_MPP_Y))
    aspect = along / down if along and down else aspect
    if abs(aspect - 1) > SQUARE_WITHIN:
        measures = f"{along:g} x {down:g} µm" if along and down else f"{aspect:g} times as wide as high"
        raise BadSlide(
            f"{name}: its pixels aren't square ({measures}), and tiles are cut from square ones. Resample it to square pixels, "
            "or mend its scale tags if they are wrong."
        )
    if stated is not None:
        return stated, "manifest"
    if along and down and 0.01 <= (along + down) / 2 <= 100:
        return (along + down) / 2, "file"
    known = [f"{value:g} µm/px {way}" for value, way in ((along, "along x"), (down, "along y")) if value]
    if power := _positive(handle, openslide.PROPERTY_NAME_OBJECTIVE_POWER):
        known.append(f"an objective of {power:g}x")
    hint = f" It states {' and '.join(known)}, which doesn't do." if known else ""
    raise BadSlide(f"{name}: the file doesn't tell its scale.{hint} State 'mpp' (µm/px at level 0) in the manifest.")


def _positive(handle: openslide.AbstractSlide, key: str) -> float | None:
    try:
        value = float(handle.properties[key])
    except (KeyError, ValueError):
        return None
    return value if 0 < value < math.inf else None
