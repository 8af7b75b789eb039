"""Plain pictures of any size, read in boxes by libvips in little memory."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import openslide
import pyvips
import tifffile
from PIL import Image

from pipeline.slides.pixel_format import BadSlide, PixelFormat, fault_of_rgb, read_format

_DISC_BYTES = 100e6
"""libvips keeps what it decodes in a file without a name once it is larger than this."""
_ALPHA = 3


class Pixels:
    """The samples of a plain picture as its file has them, read in boxes.

    PNG, JPEG, WebP and TIFF without tiles are decoded once, on the first read, to a file without a name in the
    system's folder for temporary files (TMPDIR). It takes as much of the disk as there are samples, and goes with the
    process.
    """

    def __init__(self, path: Path, found: PixelFormat):
        self.path, self.found = path, found
        self._check_disk()
        pyvips.cache_set_max(0)  # an image that is closed must let go of its file
        try:
            self._image = _from_tifffile(path, found) if found.beyond_libvips else _from_libvips(path, found)
        except pyvips.Error as error:
            raise _as_os_error(error) from error
        self.channels = self._image.bands

    def read(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """(height, width) or (height, width, channels) samples of a box inside the picture.

        Raises
        ------
        OSError
            when the file breaks off or holds damaged data.
        """
        if self._image is None:
            raise OSError("it is closed")
        try:
            box = self._image.crop(x, y, width, height).numpy()
        except pyvips.Error as error:
            raise _as_os_error(error) from error
        return box.reshape(height, width, -1)[..., 0] if self.channels == 1 else box.reshape(height, width, -1)

    def half_transparent(self) -> bool:
        """Whether alpha, the last channel, is anywhere neither 0 nor the most."""
        alpha = self._image[self.channels - 1]
        try:
            return ((alpha > 0) & (alpha < 255)).max() > 0
        except pyvips.Error as error:
            raise _as_os_error(error) from error

    def close(self) -> None:
        self._image = None

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


def _from_libvips(path: Path, found: PixelFormat) -> pyvips.Image:
    load = {
        "PNG": pyvips.Image.pngload,
        "JPEG": pyvips.Image.jpegload,
        "TIFF": pyvips.Image.tiffload,
        "WEBP": pyvips.Image.webpload,
    }[found.kind]
    # of a damaged JPEG libvips only warns; of a PNG, it warns of colour profiles too
    options = {"access": "random", "fail_on": "warning" if found.kind == "JPEG" else "error"}
    if found.kind != "WEBP":
        options["unlimited"] = True
    return load(str(path), **options)


def _from_tifffile(path: Path, found: PixelFormat) -> pyvips.Image:
    """Decode a TIFF at once that libvips can't read."""
    if found.colours not in ("RGB", "grey") or found.bits < 8:
        raise OSError(f"its compression isn't read with {found.colours} of {found.bits} bits: save it with deflate")
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        try:
            samples = page.asarray()
        except (ValueError, RuntimeError, IndexError) as error:
            raise OSError(str(error)) from error
    separate = samples.ndim == 3 and samples.shape[:2] != (found.height, found.width)
    return pyvips.Image.new_from_array(np.ascontiguousarray(np.moveaxis(samples, 0, -1) if separate else samples))


def _as_os_error(error: pyvips.Error) -> OSError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return OSError("; ".join(dict.fromkeys(lines[1:] or lines)))


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
    def detect_format(cls, filename) -> str | None:
        found = read_format(Path(filename))
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
        inside = _as_rgb(self._pixels.read(left, top, right - left, bottom - top))
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
