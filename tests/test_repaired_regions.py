"""Regions that are made anew: what is woven holds each of them with a window's side around it, and no more of the slide than that asks."""

from __future__ import annotations

import json

import numpy as np
import shapely
from hypothesis import given
from hypothesis import strategies as st

from histoloom.sampling.repaired_regions import boxes_of, regions_in_px, write_regions
from histoloom.slides.geojson import read_geojson
from histoloom.slides.regions import Regions
from tests.build import box_ring, feature, write_geojson

WINDOW, FACTOR = 16, 4
SIDE = st.integers(1, 60)


def _regions(folder, boxes: list[tuple[int, int, int, int]]) -> Regions:
    write_geojson(folder / "regions.json", *(feature("x", box_ring(x, y, x + w, y + h)) for x, y, w, h in boxes))
    return read_geojson(folder / "regions.json", None)[0]


@given(
    boxes=st.lists(st.tuples(st.integers(0, 500), st.integers(0, 300), SIDE, SIDE), min_size=1, max_size=8),
    size=st.tuples(st.integers(320, 400), st.integers(520, 600)),
)
def test_each_region_lies_in_one_box_with_a_window_around_it(tmp_path_factory, boxes, size):
    height, width = size
    found = boxes_of(_regions(tmp_path_factory.getbasetemp(), boxes), size, WINDOW, FACTOR)
    assert all(box.left % FACTOR == box.top % FACTOR == 0 for box in found)
    assert all(0 < box.right <= width and 0 < box.bottom <= height for box in found)
    for x, y, w, h in boxes:
        near = max(0, x - WINDOW), max(0, y - WINDOW), min(width, x + w + WINDOW), min(height, y + h + WINDOW)
        holds = [
            box.left <= near[0] and box.top <= near[1] and box.right >= near[2] and box.bottom >= near[3]
            for box in found
        ]
        assert sum(holds) == 1
    far = shapely.union_all([shapely.box(x - 99, y - 99, x + w + 99, y + h + 99) for x, y, w, h in boxes])
    assert len(boxes) > 1 or far.contains(shapely.box(found[0].left, found[0].top, found[0].right, found[0].bottom))


def test_regions_beyond_the_slide_are_no_box_and_those_of_a_box_are_written_from_its_corner(tmp_path):
    regions = _regions(tmp_path, [(40, 20, 10, 10), (900, 20, 10, 10), (240, 20, 8, 8)])
    first, second = boxes_of(regions, (100, 300), WINDOW, FACTOR)
    assert first == (24, 4, 44, 44) and second == (224, 4, 40, 40)
    (only,) = json.loads(write_regions(regions, second, tmp_path / "w").read_text())["features"]
    assert np.array(only["geometry"]["coordinates"][0]).min(0).tolist() == [16, 16]


def test_polygons_are_scaled(tmp_path):
    _regions(tmp_path, [(40, 20, 10, 10)])
    found = regions_in_px(tmp_path / "regions.json", 2.0, (100, 100))
    assert shapely.bounds(found.polygons)[0].tolist() == [20, 10, 25, 15]
