"""One door for slides: SVS, NDPI, MRXS and tiled TIFF through OpenSlide, plain TIFF, PNG, JPEG and WebP through libvips."""

from __future__ import annotations

import math
from pathlib import Path

import openslide

from histoloom.data.commit import digest, hash_tree
from histoloom.data.slide_files import slide_files
from histoloom.slides.file_header import is_tiff, read_format
from histoloom.slides.pixel_format import PixelFormat, fault_of_rgb, fault_of_samples, fault_of_size
from histoloom.slides.plain import PlainSlide, check_alpha
from histoloom.slides.slide import BadSlide, Slide

SQUARE_WITHIN = 0.01
"""Width and height of a pixel may differ by this fraction: scales in files are rounded."""
GENERIC = "generic-tiff"
"""OpenSlide's name of a tiled TIFF that no scanner's maker wrote."""


def slide_sha256(path: Path) -> str:
    """Of all files that hold a slide."""
    return digest([hash_tree(each) for each in slide_files(path)])


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
        skewed = kind == GENERIC and found and found.extra and found.colours.endswith("grey")
        if kind is None or skewed:
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


def _scale(name: str, handle: openslide.AbstractSlide, aspect: float, mpp: float | None) -> tuple[float, str]:
    """µm per level-0 pixel, and who says so: `mpp` is the manifest's.

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
    if mpp is not None:
        return mpp, "manifest"
    if along and down and 0.01 <= (along + down) / 2 <= 100:
        return (along + down) / 2, "file"
    known = [f"{value:g} µm/px {way}" for value, way in ((along, "along x"), (down, "along y")) if value]
    if power := _positive(handle, openslide.PROPERTY_NAME_OBJECTIVE_POWER):
        known.append(f"an objective of {power:g}x")
    hint = f" It states {' and '.join(known)}, which doesn't do." if known else ""
    raise BadSlide(
        f"{name}: the file doesn't tell its scale.{hint} State it in µm/px at level 0: 'mpp' in slides.csv, or --slide-mpp of a command that takes one slide."
    )


def _positive(handle: openslide.AbstractSlide, key: str) -> float | None:
    try:
        value = float(handle.properties[key])
    except (KeyError, ValueError):
        return None
    return value if 0 < value < math.inf else None
