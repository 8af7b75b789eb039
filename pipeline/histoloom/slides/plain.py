"""Plain pictures of any size, read in boxes by libvips in little memory."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import openslide
import pyvips
import tifffile
from PIL import Image

from histoloom.data.pixel_box import PixelBox
from histoloom.slides.file_header import UNREADABLE, read_format
from histoloom.slides.pieces import Tiles
from histoloom.slides.pixel_format import PixelFormat, fault_of_rgb
from histoloom.slides.slide import BadSlide

_DISC_BYTES = 100e6
"""libvips keeps what it decodes in a file without a name once it is larger than this."""
_ALPHA = 3
_BAND_PX = 2**23
_ReadBox = Callable[[PixelBox[int]], np.ndarray]


class Pixels:
    """The samples of a plain picture, read in boxes: of a mask as its file has them, of colours as they are shown.

    PNG, JPEG, WebP and TIFF without tiles are decoded once, on the first read, to a file without a name in the
    system's folder for temporary files (TMPDIR). It takes as much of the disk as there are samples, and goes with the
    process.
    """

    def __init__(self, path: Path, found: PixelFormat):
        self.path, self.found = path, found
        self._check_disk()
        pyvips.cache_set_max(0)  # an image that is closed must let go of its file
        with _as_os_error():
            self._read: _ReadBox | None = _box_reader(path, found)

    def read(self, box: PixelBox[int]) -> np.ndarray:
        """(height, width) or (height, width, channels) samples of a box inside the picture.

        Raises
        ------
        OSError
            when the file breaks off or holds damaged data.
        """
        if self._read is None:
            raise OSError("it is closed")
        with _as_os_error():
            samples = self._read(box).reshape(box.height, box.width, -1)
        return samples[..., 0] if samples.shape[2] == 1 else samples

    def half_transparent(self) -> bool:
        """Whether alpha, the last channel, is anywhere neither 0 nor the most."""
        rows = max(1, _BAND_PX // self.found.width)
        for top in range(0, self.found.height, rows):
            alpha = self.read(PixelBox(0, top, self.found.width, min(rows, self.found.height - top)))[..., -1]
            if ((alpha > 0) & (alpha < 255)).any():
                return True
        return False

    def close(self) -> None:
        self._read = None

    def _check_disk(self) -> None:
        found, folder = self.found, tempfile.gettempdir()
        if found.tiled or found.beyond_libvips:
            return
        needed = found.width * found.height * max(1, found.bits // 8) * (4 if found.colours == "RGB" else 1)
        free = shutil.disk_usage(folder).free
        if needed > _DISC_BYTES and needed > free:
            raise BadSlide(
                f"{self.path.name}: up to {needed / 1e9:.0f} GB of pixels may be decoded to {folder}, where {free / 1e9:.0f} GB "
                "are free. Set TMPDIR to a larger disk, or convert the file to a tiled TIFF."
            )


def _box_reader(path: Path, found: PixelFormat) -> _ReadBox:
    if found.tiled:
        tiles = Tiles(path)
        return lambda box: _as_shown(tiles.read(box), found)
    if found.beyond_libvips:
        whole = _decoded_at_once(path, found)
        return lambda box: _as_shown(whole[box.top : box.bottom, box.left : box.right], found)
    image = _from_libvips(path, found)
    return lambda box: image.crop(*box).numpy()


def _from_libvips(path: Path, found: PixelFormat) -> pyvips.Image:
    load = {
        "PNG": pyvips.Image.pngload,
        "JPEG": pyvips.Image.jpegload,
        "TIFF": pyvips.Image.tiffload,
        "WEBP": pyvips.Image.webpload,
    }[found.kind]
    # of a damaged JPEG libvips only warns; of a PNG, it warns of colour profiles too
    options: dict[str, str | bool] = {"access": "random", "fail_on": "warning" if found.kind == "JPEG" else "error"}
    if found.kind != "WEBP":
        options["unlimited"] = True
    image = load(str(path), **options)
    if found.colours != "palette" and found.bits < 8:  # libvips spreads them over 0 to 255
        image = (image / (255 // (2**found.bits - 1))).cast("uchar")
    return image


def _decoded_at_once(path: Path, found: PixelFormat) -> np.ndarray:
    """(height, width, channels) of a TIFF that libvips can't read."""
    with tifffile.TiffFile(path) as file:
        samples = file.pages.first.asarray()
    if not samples.size:
        raise OSError("its samples are of no known kind")
    separate = samples.ndim == 3 and samples.shape[:2] != (found.height, found.width)
    samples = (np.moveaxis(samples, 0, -1) if separate else samples).reshape(found.height, found.width, -1)
    return samples.view(np.uint8) if samples.dtype == bool else samples


def _as_shown(samples: np.ndarray, found: PixelFormat) -> np.ndarray:
    if found.colours == "palette":
        assert found.palette is not None, "fault_of_samples asks for it"
        return found.palette[samples[..., 0]]
    if found.colours == "inverted grey":
        samples = samples.copy()
        samples[..., 0] = 255 - samples[..., 0]
    return samples


@contextmanager
def _as_os_error() -> Iterator[None]:
    try:
        yield
    except pyvips.Error as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise OSError("; ".join(dict.fromkeys(lines[1:] or lines))) from error
    except UNREADABLE as error:
        raise OSError(str(error) or repr(error)) from error


def check_alpha(path: Path, found: PixelFormat) -> None:
    """Refuse a plain picture whose alpha isn't 0, which is glass, or 255.

    Raises
    ------
    BadSlide
    """
    if found.extra == "alpha" and Pixels(path, found).half_transparent():
        raise BadSlide(
            f"{path.name}: some pixels are half transparent, so that their colour isn't stated. Save it without "
            "transparency."
        )


class PlainSlide(openslide.AbstractSlide):
    """A plain picture with the one level of a slide that has no pyramid."""

    def __init__(self, path: Path, found: PixelFormat):
        super().__init__()
        self._pixels = Pixels(path, found)
        self._size = found.width, found.height

    def __repr__(self) -> str:
        return f"PlainSlide({self._pixels.path.name})"

    @classmethod
    def detect_format(cls, filename: str | bytes | os.PathLike) -> str | None:
        found = read_format(Path(os.fsdecode(filename)))
        return None if fault_of_rgb(found) else found.kind

    def close(self) -> None:
        self._pixels.close()

    level_count, level_downsamples, associated_images, properties = 1, (1.0,), {}, {}

    @property
    def level_dimensions(self) -> tuple[tuple[int, int], ...]:
        return (self._size,)

    @property
    def dimensions(self) -> tuple[int, int]:
        return self._size

    def get_best_level_for_downsample(self, downsample: float) -> int:
        return 0

    def set_cache(self, cache: openslide.OpenSlideCache) -> None:
        """There is none."""

    def read_region(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        """RGB or RGBA; what lies beyond the picture is transparent."""
        (x, y), (width, height), (right, bottom) = location, size, self._size
        left, top = max(x, 0), max(y, 0)
        right, bottom = min(x + width, right), min(y + height, bottom)
        if right <= left or bottom <= top:
            return Image.new("RGBA", size)
        inside = _as_rgb(self._pixels.read(PixelBox(left, top, right - left, bottom - top)))
        if inside.size == size:
            return inside
        region = Image.new("RGBA", size)
        region.paste(inside, (left - x, top - y))
        return region


def _as_rgb(samples: np.ndarray) -> Image.Image:
    """8-bit grey, with or without alpha, has three equal channels; RGB stays as it is."""
    if samples.ndim == 2:
        samples = samples[..., None]
    channels = samples.shape[2]
    if channels <= 2:
        samples = samples[..., [0] * _ALPHA + [1] * (channels - 1)]
    return Image.fromarray(np.ascontiguousarray(samples))
