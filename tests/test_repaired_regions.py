"""Regions that are made anew: each is woven in one group with all that its windows see, and no more of the slide than that asks."""

from __future__ import annotations

import json

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from histoloom.data.pixel_box import PixelBox
from histoloom.errors import HistoloomError
from histoloom.sampling.repaired_regions import grouped, regions_in_px, write_regions
from histoloom.slides.geojson import read_geojson
from tests.build import box_ring, feature, write_geojson

WINDOW, FACTOR = 16, 4
SIDE = st.integers(1, 60)
Boxes = list[tuple[float, float, float, float]]


def _regions(folder, boxes: Boxes, size: tuple[int, int] = (400, 600), downsample: float = 1.0):
    path = folder / "regions.json"
    write_geojson(path, *(feature("x", box_ring(x, y, x + w, y + h)) for x, y, w, h in boxes))
    return regions_in_px(path, downsample, size)


@given(
    boxes=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 300), SIDE, SIDE), min_size=1, max_size=8),
    size=st.tuples(st.integers(320, 400), st.integers(520, 600)),
)
def test_each_region_is_of_one_group_whose_box_holds_a_window_around_it(tmp_path_factory, boxes, size):
    (height, width), regions = size, _regions(tmp_path_factory.getbasetemp(), boxes, size)
    found = grouped(regions, size, WINDOW, FACTOR)
    assert sum(len(group.regions) for group in found) == len(boxes)
    placed = [own.moved(box.left, box.top).polygons for box, own in found]
    for number, ((left, top, wide, high), _) in enumerate(found):
        assert left % FACTOR == top % FACTOR == 0 and 0 < left + wide <= width and 0 < top + high <= height
        bounds = shapely.bounds(placed[number])
        seen = shapely.box(*(bounds + np.array([-WINDOW, -WINDOW, WINDOW, WINDOW])).T)
        assert shapely.covers(
            shapely.box(left, top, left + wide, top + high),
            shapely.intersection(seen, shapely.box(0, 0, width, height)),
        ).all()
        others = np.concatenate([[], *placed[:number], *placed[number + 1 :]])
        assert not shapely.contains(shapely.union_all(seen), others).any(), "what a window sees is of its own group"


def test_a_chain_of_regions_far_from_others_takes_its_own_box_and_what_is_beyond_the_slide_is_said(tmp_path, capsys):
    regions = _regions(tmp_path, [(40, 20, 10, 10), (900, 20, 10, 10), (240, 20, 8, 8), (300, 0, 9, 9)], (100, 300))
    first, second = grouped(regions, (100, 300), WINDOW, FACTOR)
    assert first.box == (24, 4, 44, 44) and second.box == (224, 4, 40, 40)
    (only,) = json.loads(write_regions(second.regions, tmp_path / "w").read_text())["features"]
    assert np.array(only["geometry"]["coordinates"][0]).min(0).tolist() == [16, 16]
    assert "2 of 4 polygons lie beyond the slide" in " ".join(capsys.readouterr().err.split())


def test_a_canvas_reads_from_its_file_the_pixels_that_are_said_to_be_made(tmp_path):
    """Small polygons are rounded by their place in a file, which is another in that of a group."""
    regions = _regions(tmp_path, [(7 + 50 * n, 9.3, 6.5, 4.2) for n in range(7)])
    groups = grouped(regions, (400, 600), WINDOW, FACTOR)
    assert len(groups) == 7
    for number, (box, own) in enumerate(groups):
        read, _ = read_geojson(write_regions(own, tmp_path / str(number)), None)
        whole = PixelBox(0, 0, box.width, box.height)
        assert own.numbers(whole, 1.0).any()
        assert np.array_equal(read.numbers(whole, 1.0), own.numbers(whole, 1.0))


def test_polygons_are_scaled_and_cut_at_the_border(tmp_path):
    found = _regions(tmp_path, [(40, 20, 10, 10), (-20, 30, 60, 10)], (100, 100), 2.0)
    assert shapely.bounds(found.polygons).tolist() == [[20, 10, 25, 15], [0, 15, 20, 20]]


@pytest.mark.parametrize("box", [(10.6, 5, 0.3, 55), (500, 5, 20, 20)], ids=["between centres", "beyond"])
def test_regions_without_a_pixel_are_refused(tmp_path, box):
    with pytest.raises(HistoloomError, match="cover no pixel"):
        _regions(tmp_path, [box], (100, 100))
