"""Tiles and strips that are not in the file, damaged, or of absurd sizes are refused, never read as black or background."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from histoloom.data.pixel_box import PixelBox
from histoloom.slides.open import open_slide
from histoloom.slides.pieces import Tiles
from histoloom.slides.rasters import read_raster
from histoloom.slides.slide import BadSlide
from tests.build import tissue_picture

SIDE = 256
IDS = np.random.default_rng(0).integers(1, 4, (SIDE, SIDE), dtype=np.uint8)
RGB = tissue_picture(SIDE, SIDE, seed=3)
LAYOUTS = {"tiled": {"tile": (64, 64)}, "striped": {"rowsperstrip": 32}}


def _tiff(path, samples, **options):
    photometric = "rgb" if samples.ndim == 3 else "minisblack"
    tifffile.imwrite(path, samples, metadata=None, **{"photometric": photometric, **options})
    return path


def _cut(path):
    contents = path.read_bytes()
    path.write_bytes(contents[: len(contents) // 2])


def _damaged(path):
    """All of a middle tile's bytes are others."""
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        middle = len(page.dataoffsets) // 2
        offset, count = page.dataoffsets[middle], page.databytecounts[middle]
    contents = bytearray(path.read_bytes())
    contents[offset : offset + count] = bytes(255 - value for value in contents[offset : offset + count])
    path.write_bytes(contents)


def _shortened(path):
    """A middle tile's bytes end early, as the table has it."""
    with tifffile.TiffFile(path, mode="r+b") as file:
        tag = file.pages.first.tags[325 if file.pages.first.is_tiled else 279]
        counts = list(tag.value)
        counts[len(counts) // 2] //= 3
        tag.overwrite(counts)


def _missing(path):
    with tifffile.TiffFile(path, mode="r+b") as file:
        for code in (324, 325):
            tag = file.pages.first.tags[code]
            tag.overwrite([*tag.value[:-1], 0])


SPOILT = {"cut": _cut, "damaged": _damaged, "shortened": _shortened, "missing": _missing}
MASKS = [
    (compression, layout, how)
    for compression in ("none", "zlib", "lzw", "packbits", "zstd")
    for layout in LAYOUTS
    for how in SPOILT
    if not (how == "damaged" and compression in ("none", "packbits"))  # which any bytes can be
    and not (how == "missing" and layout == "striped")
]


@pytest.mark.parametrize("palette", [False, True], ids=["grey", "palette"])
@pytest.mark.parametrize("compression, layout, how", MASKS)
def test_a_spoilt_mask_is_refused(tmp_path, compression, layout, how, palette):
    options = {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256)} if palette else {}
    path = _tiff(tmp_path / "m.tif", IDS, compression=compression, **LAYOUTS[layout], **options)
    assert np.array_equal(read_raster(path, SIDE, SIDE).read(PixelBox(0, 0, SIDE, SIDE)), IDS)
    SPOILT[how](path)
    with pytest.raises(BadSlide, match=r"m\.tif: .*"):
        read_raster(path, SIDE, SIDE)


@pytest.mark.parametrize("how", ["cut", "damaged", "shortened"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", ["none", "zlib", "lzw", "webp", "zstd"])
def test_a_spoilt_slide_is_refused(tmp_path, compression, layout, how):
    options = {"compressionargs": {"lossless": True}} if compression == "webp" else {}
    path = _tiff(tmp_path / "s.tif", RGB, compression=compression, **LAYOUTS[layout], **options)
    with open_slide(path, 0.5) as slide:
        assert np.array_equal(slide.read(PixelBox(0, 0, SIDE, SIDE), 1.0), RGB)
    if how == "damaged" and compression == "none":
        return
    SPOILT[how](path)
    with pytest.raises(BadSlide, match=r"s\.tif: "), open_slide(path, 0.5) as slide:
        slide.read(PixelBox(0, 0, SIDE, SIDE), 1.0)


def test_a_cut_tiled_file_is_refused_before_a_pixel_is_read(tmp_path):
    for samples in (RGB, IDS):
        _cut(_tiff(tmp_path / "s.tif", samples, compression="zlib", tile=(64, 64)))
        with pytest.raises(BadSlide, match=r"the file breaks off\. Copy it again"):
            open_slide(tmp_path / "s.tif", 0.5)


def test_a_slide_s_tile_of_no_bytes_is_glass(tmp_path):
    _missing(path := _tiff(tmp_path / "s.tif", RGB, compression="zlib", tile=(64, 64)))
    with open_slide(path, 0.5) as slide:
        read = slide.read(PixelBox(0, 0, SIDE, SIDE), 1.0)
    assert (read[-64:, -64:] == 255).all() and np.array_equal(read[:-64], RGB[:-64])


def test_no_file_stays_open_for_a_mask(tmp_path):
    masks = [_tiff(tmp_path / f"{n}.tif", IDS, tile=(64, 64)) for n in range(9)]
    before = len(list(Path("/proc/self/fd").iterdir()))
    kept = [read_raster(path, SIDE, SIDE) for path in masks]
    assert len(kept) == 9 and len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("compression", ["none", "lzma", "zlib"])
@pytest.mark.parametrize("byteorder", "<>")
def test_boxes_of_tiles_are_those_of_the_picture(tmp_path, compression, planar, byteorder):
    samples = np.random.default_rng(1).integers(0, 60_000, (130, 210, 3), dtype=np.uint16)
    stored = np.moveaxis(samples, -1, 0).copy() if planar == "separate" else samples
    options = {"planarconfig": planar, "compression": compression, "byteorder": byteorder, "tile": (64, 48)}
    tiles = Tiles(_tiff(tmp_path / "s.tif", stored, **options))
    for sides in ((0, 0, 210, 130), (47, 63, 2, 2), (50, 70, 1, 1), (209, 129, 1, 1), (10, 20, 180, 100)):
        box = PixelBox(*sides)
        assert np.array_equal(tiles.read(box), samples[box.top : box.bottom, box.left : box.right])


def _overwritten(path, code, value, kind=4, count=1):
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags[code].offset
    contents = bytearray(path.read_bytes())
    contents[place + 2 : place + 8] = struct.pack("<HI", kind, count)
    contents[place + 8 : place + 12] = value
    path.write_bytes(contents)


_OPENED = """
import sys
from pathlib import Path
from histoloom.slides.open import open_slide
from histoloom.slides.rasters import read_raster
path = Path(sys.argv[1])
for read in (lambda: open_slide(path, 0.5), lambda: read_raster(path, 256, 256)):
    try:
        read()
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("samples", [RGB, IDS], ids=["slide", "mask"])
@pytest.mark.parametrize(
    "code, value, reason",
    [
        (322, 2**29, "536870912 x 64 px, and 67 megapixels"),
        (323, 2**30, "64 x 1073741824 px"),
        (257, 2**20, "16 places and 16 lengths of"),
        (322, 16, "16 places and 16 lengths of 64 tiles"),
    ],
)
def test_absurd_tags_are_refused_in_words_and_the_process_lives(tmp_path, samples, code, value, reason):
    path = _tiff(tmp_path / "s.tif", samples, tile=(64, 64), byteorder="<")
    _overwritten(path, code, struct.pack("<I", value))
    done = subprocess.run([sys.executable, "-c", _OPENED, str(path)], capture_output=True, text=True, check=True)
    refused = [line for line in done.stdout.splitlines() if line.startswith("BadSlide s.tif: ")]
    assert len(refused) == 2 and reason in refused[0] and ("channel(s)" in refused[1] or reason in refused[1])


@pytest.mark.parametrize("samples, channels", [(RGB, 1), (IDS, 0)], ids=["slide", "mask"])
def test_too_few_channels_are_refused_in_words(tmp_path, samples, channels):
    path = _tiff(tmp_path / "s.tif", samples, compression="zstd", byteorder="<")
    _overwritten(path, 277, struct.pack("<HH", channels, 0), 3)
    for read in (lambda: open_slide(path, 0.5), lambda: read_raster(path, SIDE, SIDE)):
        with pytest.raises(BadSlide, match="too few for its colours"):
            read()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_floats_of_one_bit_are_refused_in_words(tmp_path, layout):
    path = _tiff(tmp_path / "m.tif", IDS.astype(np.float32), compression="zstd", byteorder="<", **LAYOUTS[layout])
    _overwritten(path, 258, struct.pack("<HH", 1, 0), 3)
    with pytest.raises(BadSlide, match=r"m\.tif: the mask cannot be read"):
        read_raster(path, SIDE, SIDE)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("code", [256, 257, 258, 259, 262, 274, 277, 282, 284, 322])
def test_a_tag_of_two_values_is_refused_in_words_or_read(tmp_path, code, layout):
    if code == 322 and layout == "striped":
        return
    options = {"extratags": [(274, "H", 1, 1, True)], "resolution": (72, 72), "byteorder": "<"}
    path = _tiff(tmp_path / "s.tif", RGB, **options, **LAYOUTS[layout])
    _overwritten(path, code, struct.pack("<HH", 1, 8), kind=3, count=2)
    for read in (lambda: open_slide(path, 0.5), lambda: read_raster(path, SIDE, SIDE)):
        try:
            read()
        except BadSlide as error:
            assert str(error).startswith("s.tif: ")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "kind, value", [(3, struct.pack("<HH", 72, 0)), (4, struct.pack("<I", 72)), (11, struct.pack("<f", 72))]
)
def test_a_resolution_that_is_a_plain_number_is_read(tmp_path, kind, value, layout):
    path = _tiff(tmp_path / "s.tif", RGB, resolution=(72, 72), byteorder="<", **LAYOUTS[layout])
    for code in (282, 283):
        _overwritten(path, code, value, kind)
    with open_slide(path, 0.5) as slide:
        assert np.array_equal(slide.read(PixelBox(0, 0, SIDE, SIDE), 1.0), RGB)
    _overwritten(path, 283, struct.pack("<I", 36), 4)
    with pytest.raises(BadSlide, match="aren't square"):
        open_slide(path, 0.5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("width", [SIDE, 300])
def test_grey_with_opaque_alpha_is_exact_where_tiles_reach_over_the_border(tmp_path, width, layout):
    grey = tissue_picture(width, SIDE, seed=2)[..., 0]
    options = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}
    path = _tiff(tmp_path / "s.tif", np.dstack([grey, np.full_like(grey, 255)]), **options, **LAYOUTS[layout])
    with open_slide(path, 0.5) as slide:
        assert np.array_equal(slide.read(PixelBox(0, 0, width, SIDE), 1.0), np.repeat(grey[..., None], 3, -1))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_inverted_grey_palettes_orientation_0_and_half_floats_are_read(tmp_path, compression, layout):
    options = {"compression": compression, **LAYOUTS[layout]}
    grey, colours = RGB[..., 0].copy(), np.random.default_rng(0).integers(0, 256, (3, 256), np.uint16)
    shown = {
        "w.tif": (grey, {"photometric": "miniswhite"}, np.repeat(255 - grey[..., None], 3, -1)),
        "p.tif": (grey, {"photometric": "palette", "colormap": colours * 257}, colours.T[grey]),
        "o.tif": (RGB, {"extratags": [(274, "H", 1, 0, True)]}, RGB),
    }
    for name, (samples, more, expected) in shown.items():
        with open_slide(_tiff(tmp_path / name, samples, **options, **more), 0.5) as slide:
            assert np.array_equal(slide.read(PixelBox(0, 0, SIDE, SIDE), 1.0), expected)
    if compression == "zstd":
        mask = read_raster(_tiff(tmp_path / "m.tif", IDS.astype(np.float16), **options), SIDE, SIDE)
        assert np.array_equal(mask.read(PixelBox(0, 0, SIDE, SIDE)), IDS)
