"""Polygons, rasters and spots become labels and masks; what cannot is a fault with its number and remedy."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from shapely import contains_xy
from shapely.geometry import Polygon

from pipeline.config import Tile
from pipeline.data.manifest import SlideEntry
from pipeline.slides.annotate import load_annotations, rasterise, read_polygons
from pipeline.slides.open import BadSlide
from pipeline.slides.rasters import read_raster
from tests.build import box_ring, feature, write_geojson

CLASSES = ("stroma", "tumour")
BIG, HOLE = box_ring(0, 0, 40, 40), box_ring(10, 10, 30, 30)


def _regions(*parts):
    return [(name, Polygon(outline, holes)) for name, outline, holes in parts]


def test_a_hole_is_not_of_the_class():
    ids = rasterise(_regions(("tumour", BIG, [HOLE])), CLASSES, 0, 0, 50, 50, 1.0)
    assert ids.dtype == np.uint8 and ids.shape == (50, 50)
    assert ids[5, 5] == ids[35, 35] == 2
    assert ids[20, 20] == ids[45, 45] == 0


def test_an_island_in_a_hole_and_what_lies_under_it_show():
    regions = _regions(("stroma", BIG, []), ("tumour", BIG, [HOLE]), ("tumour", box_ring(18, 18, 22, 22), []))
    ids = rasterise(regions, CLASSES, 0, 0, 40, 40, 1.0)
    assert (ids[5, 5], ids[12, 12], ids[20, 20]) == (2, 1, 2)


@pytest.mark.parametrize("order", [1, -1])
def test_where_polygons_overlap_the_later_class_wins_in_any_file_order(order):
    regions = _regions(("tumour", HOLE, []), ("stroma", BIG, []), ("nothing known", BIG, []))[::order]
    ids = rasterise(regions, CLASSES, 0, 0, 40, 40, 1.0)
    assert (ids[20, 20], ids[5, 5]) == (2, 1)
    assert (rasterise(regions, CLASSES[::-1], 0, 0, 40, 40, 1.0) > 0).all()


@given(st.integers(-20, 60), st.integers(-20, 60), st.sampled_from([0.5, 1.0, 2.0, 3.7]))
def test_a_box_of_a_polygon_is_cut_out_of_the_whole(x, y, downsample):
    outline = [(12, 3), (70, 20), (55, 66), (20, 60), (30, 30)]
    regions = _regions(("tumour", outline, []))
    ids = rasterise(regions, CLASSES, x, y, 24, 24, downsample)
    shape = Polygon(outline)
    inner, outer = shape.buffer(-1.6 * downsample), shape.buffer(1.6 * downsample)
    columns, rows = np.meshgrid(x + (np.arange(24) + 0.5) * downsample, y + (np.arange(24) + 0.5) * downsample)
    assert (ids[contains_xy(inner, columns, rows)] == 2).all()
    assert (ids[~contains_xy(outer, columns, rows)] == 0).all()


BOWTIE = [(0, 0), (10, 10), (10, 0), (0, 10)]


@pytest.mark.parametrize(
    "bad, problem, remedy",
    [
        (feature("tumour", BOWTIE), "not valid: Self-intersection", "does not cross itself"),
        (feature("tumor", BIG), "unknown label 'tumor'", "did you mean 'tumour'?"),
        (feature("xyz", BIG), "unknown label 'xyz'", "add it to the classes"),
        (feature("tumour", [(3, 4)], kind="Point"), "this Point has no area", "closed polygon"),
        (feature(None, BIG), "no class or no geometry", "give it a class"),
        (
            {"type": "Feature", "properties": {"classification": {"name": "tumour"}}, "geometry": None},
            "no geometry",
            "",
        ),
        ("not a feature", "no class or no geometry", "give it a class"),
        (feature("tumour", BIG) | {"geometry": {"type": "Polygon", "coordinates": [[[0, 0]]]}}, "no geometry", ""),
        (feature("tumour", BIG) | {"properties": {"classification": {"name": 7}}}, "the class is 7", ""),
        (feature("tumour", BIG) | {"properties": {"classification": {"name": None}}}, "the class is None", ""),
        (feature("tumour", BIG) | {"geometry": {"type": "Polygon", "coordinates": []}}, "no area", "closed polygon"),
    ],
    ids=[
        "bow tie",
        "misspelt",
        "unknown",
        "point",
        "no class",
        "no geometry",
        "text",
        "short",
        "number",
        "null",
        "void",
    ],
)
def test_a_bad_feature_is_a_fault_with_its_number_and_the_good_ones_stay(tmp_path, bad, problem, remedy):
    path = write_geojson(tmp_path / "a.geojson", feature("stroma", BIG), bad, feature("tumour", HOLE))
    regions, faults = read_polygons(path, CLASSES)
    assert [fault.row for fault in faults] == [2]
    assert problem in faults[0].problem and remedy in faults[0].remedy and faults[0].remedy
    assert faults[0].where == str(path)
    assert {"stroma", "tumour"} <= {name for name, _ in regions}


@pytest.mark.parametrize("text", ["not json", "7", "{}", "null", '{"features": 3}'])
def test_a_file_that_is_no_geojson_is_one_fault(tmp_path, text):
    (tmp_path / "a.geojson").write_text(text)
    regions, faults = read_polygons(tmp_path / "a.geojson", CLASSES)
    assert regions == [] and len(faults) == 1
    assert "not GeoJSON" in faults[0].problem and "QuPath" in faults[0].remedy


def test_qupath_s_bare_list_and_multipolygons_are_read(tmp_path):
    both = feature("tumour", BIG)
    both["geometry"] = {
        "type": "MultiPolygon",
        "coordinates": [feature("", ring)["geometry"]["coordinates"] for ring in (BIG, box_ring(50, 50, 60, 60))],
    }
    path = write_geojson(tmp_path / "a.geojson", both)
    (tmp_path / "bare.geojson").write_text(json.dumps([both]))
    for name in (path, tmp_path / "bare.geojson"):
        regions, faults = read_polygons(name, CLASSES)
        assert faults == [] and [(name, part.area) for name, part in regions] == [("tumour", 1600), ("tumour", 100)]


def _config(source: str, **labels) -> Tile:
    return Tile.model_validate({"mpp": 1.0, "labels": {"source": source, "classes": CLASSES, **labels}})


def _entry(tmp_path, **paths) -> SlideEntry:
    return SlideEntry("s", tmp_path / "s.svs", "p", 2, **paths)


@pytest.mark.parametrize("column", ["mask", "instances"])
@pytest.mark.parametrize(
    "shape, size", [((30, 41), "41 x 30 px"), ((40, 30), "30 x 40 px"), ((30, 40, 3), "3 channel")]
)
def test_a_raster_of_another_size_or_form_is_a_bad_slide(tmp_path, column, shape, size):
    Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(BadSlide) as error:
        load_annotations(_entry(tmp_path, **{column: tmp_path / "m.png"}), _config("raster"), None, 40, 30)
    assert "m.png" in str(error.value) and size in str(error.value) and "its slide 40 x 30 px" in str(error.value)


def test_a_raster_that_cannot_be_read_or_holds_unknown_ids_is_a_bad_slide(tmp_path):
    (tmp_path / "m.png").write_text("no picture")
    with pytest.raises(BadSlide, match="cannot be read"):
        load_annotations(_entry(tmp_path, mask=tmp_path / "m.png"), _config("raster"), None, 40, 30)
    Image.fromarray(np.full((30, 40), 3, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(BadSlide, match=r"class id 3, and params name 2 classes"):
        load_annotations(_entry(tmp_path, mask=tmp_path / "m.png"), _config("raster"), None, 40, 30)


def test_a_raster_may_be_larger_than_what_pillow_takes_for_an_attack(tmp_path, monkeypatch):
    Image.fromarray(np.ones((30, 40), np.uint8)).save(tmp_path / "m.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # twice that is refused
    assert read_raster(tmp_path / "m.png", 40, 30).read(0, 0, 40, 30).all() and Image.MAX_IMAGE_PIXELS == 500


def test_rasters_are_read_at_the_nearest_pixel(tmp_path):
    ids = np.random.default_rng(0).integers(0, 3, (30, 40), dtype=np.uint8)
    nuclei = np.arange(1200, dtype=np.int32).reshape(30, 40) + 70_000
    Image.fromarray(ids).save(tmp_path / "m.png")
    Image.fromarray(nuclei).save(tmp_path / "i.tif")
    entry = _entry(tmp_path, mask=tmp_path / "m.png", instances=tmp_path / "i.tif")
    found = load_annotations(entry, _config("raster"), None, 40, 30)
    np.testing.assert_array_equal(found.ids(CLASSES, "raster", (4, 2, 10, 8), 1.0), ids[2:10, 4:14])
    np.testing.assert_array_equal(found.ids(CLASSES, "raster", (4, 2, 10, 8), 3.0), ids[3:27:3, 5:35:3])
    np.testing.assert_array_equal(found.instance_ids((0, 0, 40, 30), 1.0)[0], nuclei)


def test_a_nucleus_that_a_tile_cuts_has_no_outline_along_the_cut(tmp_path):
    nuclei = np.zeros((30, 40), np.uint16)
    nuclei[5:15, 5:20] = 1
    nuclei[5:15, 20:25] = 2
    Image.fromarray(nuclei).save(tmp_path / "i.png")
    found = load_annotations(_entry(tmp_path, instances=tmp_path / "i.png"), _config("raster"), None, 40, 30)
    whole = found.instance_ids((0, 0, 40, 30), 1.0)[1]
    assert whole[10].tolist() == [0] * 5 + [1] + [0] * 13 + [1, 1] + [0] * 3 + [1] + [0] * 15
    for box in ((8, 8, 16, 12), (20, 6, 8, 8), (0, 0, 20, 30)):
        x, y, w, h = box
        np.testing.assert_array_equal(found.instance_ids(box, 1.0)[1], whole[y : y + h, x : x + w])


@pytest.mark.parametrize(
    "x, mpp, label",
    [
        (100, 0.5, "stroma"),
        (199, 0.5, "stroma"),
        (201, 0.5, None),
        (201, 0.25, "stroma"),
        (290, 0.5, "tumour"),
        (211, 0.25, "tumour"),
    ],
)
def test_a_tile_takes_its_nearest_spot_s_label_within_the_radius(tmp_path, x, mpp, label):
    spots = pd.DataFrame({"slide_id": ["s", "s", "other"], "x_level0_px": [100, 320, x], "y_level0_px": 100.0})
    spots["label"] = ["stroma", "tumour", "tumour"]
    found = load_annotations(_entry(tmp_path), _config("spots", spot_radius_um=49.5), spots, 400, 400)
    spot = found.spot(x, 100, mpp)
    assert (None if spot is None else spot["label"]) == label
