"""What is written of a mask is read as it was."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from shapely.geometry import Polygon, box

from histoloom.data.pixel_box import PixelBox
from histoloom.slides.geojson import read_geojson
from histoloom.slides.polygons import write_polygons
from histoloom.slides.regions import Regions

CLASSES = ("stroma", "tumour", "tumour: Positive")


def written(regions: Regions, raster: np.ndarray | None, size: tuple[int, int]) -> Regions:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "polygons.geojson"
        write_polygons(path, regions, raster, CLASSES, size)
        again, found = read_geojson(path, CLASSES)
    assert found == []
    return again


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=16), elements=st.integers(0, 3)))
def test_a_raster_is_written_and_read_as_it_was(raster):
    again = written(Regions.of(), raster, raster.shape)
    frame = PixelBox(0, 0, *raster.shape[::-1])
    np.testing.assert_array_equal(again.class_ids(CLASSES, frame, 1.0), raster)
    np.testing.assert_array_equal(written(again, None, raster.shape).class_ids(CLASSES, frame, 1.0), raster)
    assert sum(polygon.area for _, polygon in again) == np.count_nonzero(raster)


def test_what_is_cut_at_the_border_keeps_its_areas_and_no_lines():
    comb = Polygon([(5, 0), (15, 0), (15, 8), (10, 8), (10, 6), (14, 6), (14, 4), (10, 4), (10, 2), (5, 2)])
    again = written(Regions.of([("stroma", comb), ("tumour", box(20, 0, 30, 5))]), None, (10, 10))
    assert [name for name, _ in again] == ["stroma"]
    assert [polygon.bounds for _, polygon in again] == [(5, 0, 10, 2)]


def test_polygons_are_annotations_cut_at_the_slide_s_border(tmp_path):
    regions = Regions.of([("stroma", box(-50, 10, 60, 90)), ("tumour", box(300, 300, 400, 400))])
    again = written(regions, None, (100, 200))
    assert [(name, area.bounds) for name, area in again] == [("stroma", (0, 10, 60, 90))]
    write_polygons(tmp_path / "p.geojson", regions, None, CLASSES, (100, 200))
    (one,) = json.loads((tmp_path / "p.geojson").read_text())["features"]
    assert one["properties"] == {"objectType": "annotation", "classification": {"name": "stroma"}}
