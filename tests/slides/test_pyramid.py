"""Pyramids that OpenSlide opens, and files of pixels larger than memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histoloom.data.pixel_box import PixelBox
from histoloom.slides.pyramid import PyramidPicture, RasterFile, TiffFormat, level_sizes, write_pyramid
from tests.build import tissue_picture


def _reader(picture: np.ndarray):
    return lambda box: picture[box.top : box.bottom, box.left : box.right]


@pytest.mark.parametrize("compression, most", [("jpeg", 6.0), ("deflate", 0.0)])
def test_openslide_opens_what_was_written(tmp_path, compression, most):
    picture = tissue_picture(700, 530)
    drawn = PyramidPicture(_reader(picture), (530, 700), 0.5)
    write_pyramid(tmp_path / "s.tif", drawn, TiffFormat(compression=compression), scratch=tmp_path)
    with openslide.open_slide(str(tmp_path / "s.tif")) as slide:
        assert slide.level_dimensions == ((700, 530), (350, 265), (175, 132))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        read = np.asarray(slide.read_region((0, 0), 0, (700, 530)).convert("RGB")).astype(int)
        assert np.abs(read - picture).mean() <= most
        assert not slide.associated_images
    with tifffile.TiffFile(tmp_path / "s.tif") as file:
        assert file.is_bigtiff and [page.subfiletype for page in file.pages] == [0, 1, 1]
        assert {page.tile for page in file.pages} == {(256, 256)}
        names = {tag.name for page in file.pages for tag in page.tags.values()}
        assert not names & {"ImageDescription", "Software", "DateTime", "Artist", "HostComputer", "DocumentName"}
    assert [p.name for p in tmp_path.iterdir()] == ["s.tif"]


def test_class_ids_stay_class_ids_at_every_level(tmp_path):
    ids = np.zeros((300, 520, 1), np.uint8)
    ids[:, 200:] = 3
    drawn = PyramidPicture(_reader(ids), (300, 520), 1.0)
    write_pyramid(tmp_path / "c.tif", drawn, TiffFormat(compression="deflate"), scratch=tmp_path)
    with tifffile.TiffFile(tmp_path / "c.tif") as file:
        assert all(set(np.unique(page.asarray())) <= {0, 3} for page in file.pages)
        assert np.array_equal(file.pages[0].asarray(), ids[..., 0])


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([256, 512]))
def test_levels_halve_until_one_tile_holds_the_last(height, width, tile_px):
    levels = level_sizes((height, width), tile_px)
    assert levels[0] == (height, width) and max(levels[-1]) <= tile_px
    assert all(b == (max(1, a[0] // 2), max(1, a[1] // 2)) for a, b in pairwise(levels))


@given(st.data(), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=30)
def test_a_raster_file_gives_back_its_boxes(tmp_path_factory, data, height, width):
    raster = RasterFile(tmp_path_factory.mktemp("r") / "pixels", height, width, 3).create()
    expected = np.zeros((height, width, 3), np.uint8)
    for value in range(1, 4):
        top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        rows, columns = data.draw(st.integers(1, height - top)), data.draw(st.integers(1, width - left))
        expected[top : top + rows, left : left + columns] = value
        raster.write(np.full((rows, columns, 3), value, np.uint8), left=left, top=top)
    assert np.array_equal(raster.read(PixelBox(0, 0, width + 5, height + 5)), expected)


def test_a_plain_viewer_reads_the_thumbnail_size(tmp_path):
    picture = tissue_picture(520, 300)
    write_pyramid(tmp_path / "s.tif", PyramidPicture(_reader(picture), (300, 520), 1.0), scratch=tmp_path)
    with Image.open(tmp_path / "s.tif") as image:
        assert image.size == (520, 300)
