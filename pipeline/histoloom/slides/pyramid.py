"""A picture to a tiled BigTIFF pyramid that OpenSlide and QuPath open: one page a level, its scale in the tags.

Nothing of a patient or a source is written: the tags are those of the format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile

from histoloom.slides.raster_file import RasterFile

Read = Callable[[int, int, int, int], np.ndarray]

_CODECS = {"jpeg": lambda quality: ("jpeg", {"level": quality}), "deflate": lambda _: ("adobe_deflate", {})}


def write_pyramid(
    path: Path,
    read: Read,
    size: tuple[int, int],
    mpp: float,
    scratch: Path,
    *,
    tile_px: int = 256,
    compression: str = "jpeg",
    quality: int = 90,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Stream a picture into a pyramid whose levels halve until one tile holds the last.

    Parameters
    ----------
    read : (top, left, height, width) to pixels (h, w, 3) in colour, or (h, w, 1) of class ids, of which a coarser level
        takes every other; a box ends where the picture does.
    size : (height, width) px.
    mpp : µm/px of level 0.
    scratch : an empty folder for the coarser levels, while they are being made.
    advance : called for each tile.
    """
    codec, options = _CODECS[compression](quality)
    channels = read(0, 0, 1, 1).shape[2]
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for level, (height, width) in enumerate(sizes := level_sizes(size, tile_px)):
            coarser = None
            if level + 1 < len(sizes):
                coarser = RasterFile(scratch / f"level-{level + 1}", *sizes[level + 1], channels).create()
            writer.write(
                _tiles(read, (height, width), tile_px, coarser, advance),
                shape=(height, width, channels) if channels == 3 else (height, width),
                dtype=np.uint8,
                tile=(tile_px, tile_px),
                photometric="rgb" if channels == 3 else "minisblack",
                compression=codec,
                compressionargs=options,
                subfiletype=int(level > 0),
                resolution=(1e4 / (mpp * size[1] / width), 1e4 / (mpp * size[0] / height)),
                resolutionunit="CENTIMETER",
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
    read: Read, size: tuple[int, int], tile_px: int, coarser: RasterFile | None, advance
) -> Iterator[np.ndarray]:
    """A level's tiles in the order of the file, filled up at its borders; on the way the next level is written."""
    for top in range(0, size[0], tile_px):
        for left in range(0, size[1], tile_px):
            pixels = read(top, left, tile_px, tile_px)
            if coarser is not None:
                half = _halved(pixels)[: coarser.height - top // 2, : coarser.width - left // 2]
                coarser.write(top // 2, left // 2, half)
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
