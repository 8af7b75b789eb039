"""Ids of masks are what their files state, or the mask is refused."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histoloom.data.pixel_box import PixelBox
from histoloom.slides import rasters
from histoloom.slides.rasters import read_raster
from histoloom.slides.slide import BadSlide

WIDTH, HEIGHT = 150, 90
IDS = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH), dtype=np.uint8)


def _read(path):
    raster = read_raster(path, WIDTH, HEIGHT)
    found = raster.read(PixelBox(0, 0, WIDTH, HEIGHT))
    assert raster.shape == (HEIGHT, WIDTH) and raster.largest == found.max()
    return found


LAYOUTS = {"tiled": {"tile": (32, 32)}, "striped": {"rowsperstrip": 16}, "zstd": {"compression": "zstd"}}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "dtype, top",
    [
        ("uint8", 255),
        ("int8", 127),
        ("uint16", 65535),
        ("int16", 32767),
        ("uint32", 2**31 - 1),
        ("int32", 2**31 - 1),
        ("float32", 2**24),
        ("float64", 2**31 - 1),
    ],
)
def test_whole_numbers_of_any_type_are_ids_up_to_their_largest(tmp_path, dtype, top, layout):
    ids = IDS.astype(np.int64)
    ids[3, 4] = top
    tifffile.imwrite(tmp_path / "m.tif", ids.astype(dtype), photometric="minisblack", metadata=None, **LAYOUTS[layout])
    assert np.array_equal(_read(tmp_path / "m.tif"), ids)


@pytest.mark.parametrize(
    "dtype, value, reason",
    [
        ("int8", -1, "holds -1"),
        ("int16", -7, "holds -7"),
        ("int32", -1, "holds -1"),
        ("uint32", 2**31, "holds 2147483648"),
        ("float32", -1, "holds -1"),
        ("float32", 0.5, "aren't whole"),
        ("float32", np.nan, "aren't whole"),
        ("float64", np.inf, "aren't whole"),
        ("float32", 2**24 + 2, "holds 16777218"),
        ("int64", 1, "of 64 bits"),
        ("complex64", 1, "of no known kind"),
    ],
)
def test_a_number_that_is_no_id_is_refused_wherever_it_lies(tmp_path, dtype, value, reason):
    ids = IDS.astype(dtype)
    ids[-1, -1] = value
    tifffile.imwrite(tmp_path / "m.tif", ids, photometric="minisblack", metadata=None)
    with pytest.raises(BadSlide, match=rf"m\.tif: .*{reason}"):
        read_raster(tmp_path / "m.tif", WIDTH, HEIGHT)


def test_pngs_of_few_bits_and_palettes_state_their_ids(tmp_path):
    Image.fromarray(IDS > 1).save(tmp_path / "bit.png")
    assert np.array_equal(_read(tmp_path / "bit.png"), IDS > 1)
    tifffile.imwrite(tmp_path / "bit.tif", IDS > 1, photometric="minisblack", metadata=None)
    assert np.array_equal(_read(tmp_path / "bit.tif"), IDS > 1)
    for bits in (2, 4):
        options = {"photometric": "minisblack", "bitspersample": bits, "metadata": None}
        tifffile.imwrite(tmp_path / "few.tif", IDS, **options)
        assert np.array_equal(_read(tmp_path / "few.tif"), IDS)
    Image.fromarray(IDS.astype(np.uint16) * 20_000).save(tmp_path / "wide.png")
    assert np.array_equal(_read(tmp_path / "wide.png"), IDS.astype(np.uint16) * 20_000)


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_a_palette_s_ids_are_its_indices_also_where_colours_repeat(tmp_path, name):
    mask = Image.fromarray(IDS).convert("P")
    mask.putdata(IDS.ravel())
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 0, 9, 9, 9] + [0] * 756)
    mask.save(tmp_path / name)
    assert np.array_equal(_read(tmp_path / name), IDS)


@pytest.mark.parametrize(
    "name, samples, options, reason",
    [
        ("m.jpg", IDS, {}, "lossy"),
        ("m.webp", IDS, {"lossless": True}, "3 channel"),
        ("m.png", np.repeat(IDS[..., None], 3, -1), {}, "3 channel.*one channel"),
        ("m.png", np.dstack([IDS, IDS]), {}, "2 channel.*one channel"),
        ("m.gif", IDS, {}, "lossy|it is GIF"),
        ("m.png", IDS[:, 1:], {}, r"149 x 90 px and 1 channel\(s\), its slide 150 x 90 px"),
        ("m.png", IDS.T, {}, r"90 x 150 px and 1 channel\(s\), its slide 150 x 90 px"),
    ],
)
def test_a_picture_that_is_no_mask_is_refused_with_its_reason(tmp_path, name, samples, options, reason):
    Image.fromarray(samples).save(tmp_path / name, **options)
    with pytest.raises(BadSlide, match=rf"{name}: .*({reason})"):
        read_raster(tmp_path / name, WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"compression": "jpeg"}, "lossy"),
        ({"photometric": "miniswhite"}, "inverted grey"),
        ({"extratags": [(274, "H", 1, 6, True)]}, "Orientation tag"),
    ],
)
def test_a_tiff_whose_ids_would_change_is_refused(tmp_path, options, reason):
    tifffile.imwrite(tmp_path / "m.tif", IDS, metadata=None, **{"photometric": "minisblack", **options})
    with pytest.raises(BadSlide, match=reason):
        read_raster(tmp_path / "m.tif", WIDTH, HEIGHT)


def test_a_stack_and_a_broken_mask_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "m.tif", np.stack([IDS, IDS]), photometric="minisblack", metadata=None)
    with pytest.raises(BadSlide, match="holds 2 pictures"):
        read_raster(tmp_path / "m.tif", WIDTH, HEIGHT)
    Image.fromarray(IDS).save(tmp_path / "m.png")
    (tmp_path / "m.png").write_bytes((tmp_path / "m.png").read_bytes()[:800])
    with pytest.raises(BadSlide, match="cannot be read"):
        read_raster(tmp_path / "m.png", WIDTH, HEIGHT)


@given(
    st.integers(-20, WIDTH), st.integers(-20, HEIGHT), st.integers(1, 60), st.integers(1, 60), st.floats(0.3, 5),
    st.sampled_from([1, 40, 500, 2**23]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_boxes_read_in_bands_are_the_nearest_pixels(whole, x, y, width, height, downsample, band):
    columns = np.clip((x + (np.arange(width) + 0.5) * downsample).astype(int), 0, WIDTH - 1)
    rows = np.clip((y + (np.arange(height) + 0.5) * downsample).astype(int), 0, HEIGHT - 1)
    before, rasters._BAND_PX = rasters._BAND_PX, band
    try:
        assert np.array_equal(
            whole.nearest(PixelBox(x, y, width * downsample, height * downsample), downsample),
            IDS[np.ix_(rows, columns)],
        )
    finally:
        rasters._BAND_PX = before


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("raster") / "m.png"
    Image.fromarray(IDS).save(path)
    return read_raster(path, WIDTH, HEIGHT)
