"""Polygons, rasters and spots become labels and masks; what cannot is a fault with its number and remedy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histoloom.config import Tile
from histoloom.data.pixel_box import PixelBox
from histoloom.data.slide_entry import SlideEntry
from histoloom.errors import Fault, Note
from histoloom.slides.annotate import load_annotations, load_polygons_and_spots
from histoloom.slides.annotation_checks import check_annotations
from histoloom.slides.rasters import read_raster
from histoloom.slides.slide import BadSlide
from tests.build import box_ring, feature, write_geojson

CLASSES = ("stroma", "tumour")


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
        load_annotations(_entry(tmp_path, **{column: tmp_path / "m.png"}), _config("raster"), None, (40, 30))
    assert "m.png" in str(error.value) and size in str(error.value) and "its slide 40 x 30 px" in str(error.value)


def test_a_raster_that_cannot_be_read_or_holds_unknown_ids_is_a_bad_slide(tmp_path):
    (tmp_path / "m.png").write_text("no picture")
    with pytest.raises(BadSlide, match="cannot be read"):
        load_annotations(_entry(tmp_path, mask=tmp_path / "m.png"), _config("raster"), None, (40, 30))
    Image.fromarray(np.full((30, 40), 3, np.uint8)).save(tmp_path / "m.png")
    with pytest.raises(BadSlide, match=r"class id 3, and params name 2 classes"):
        load_annotations(_entry(tmp_path, mask=tmp_path / "m.png"), _config("raster"), None, (40, 30))


def test_a_raster_may_be_larger_than_what_pillow_takes_for_an_attack(tmp_path, monkeypatch):
    Image.fromarray(np.ones((30, 40), np.uint8)).save(tmp_path / "m.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # twice that is refused
    assert read_raster(tmp_path / "m.png", 40, 30).read(PixelBox(0, 0, 40, 30)).all() and Image.MAX_IMAGE_PIXELS == 500


def test_rasters_are_read_at_the_nearest_pixel(tmp_path):
    ids = np.random.default_rng(0).integers(0, 3, (30, 40), dtype=np.uint8)
    nuclei = np.arange(1200, dtype=np.int32).reshape(30, 40) + 70_000
    Image.fromarray(ids).save(tmp_path / "m.png")
    Image.fromarray(nuclei).save(tmp_path / "i.tif")
    entry = _entry(tmp_path, mask=tmp_path / "m.png", instances=tmp_path / "i.tif")
    found = load_annotations(entry, _config("raster"), None, (40, 30))
    np.testing.assert_array_equal(found.ids(CLASSES, "raster", PixelBox(4, 2, 10, 8), 1.0), ids[2:10, 4:14])
    np.testing.assert_array_equal(found.ids(CLASSES, "raster", PixelBox(4, 2, 30, 24), 3.0), ids[3:27:3, 5:35:3])
    np.testing.assert_array_equal(found.instance_ids(PixelBox(0, 0, 40, 30), 1.0)[0], nuclei)


def test_a_nucleus_that_a_tile_cuts_has_no_outline_along_the_cut(tmp_path):
    nuclei = np.zeros((30, 40), np.uint16)
    nuclei[5:15, 5:20] = 1
    nuclei[5:15, 20:25] = 2
    Image.fromarray(nuclei).save(tmp_path / "i.png")
    found = load_annotations(_entry(tmp_path, instances=tmp_path / "i.png"), _config("raster"), None, (40, 30))
    whole = found.instance_ids(PixelBox(0, 0, 40, 30), 1.0)[1]
    assert whole[10].tolist() == [0] * 5 + [1] + [0] * 13 + [1, 1] + [0] * 3 + [1] + [0] * 15
    for box in (PixelBox(8, 8, 16, 12), PixelBox(20, 6, 8, 8), PixelBox(0, 0, 20, 30)):
        expected = whole[box.top : box.bottom, box.left : box.right]
        np.testing.assert_array_equal(found.instance_ids(box, 1.0)[1], expected)


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
    found = load_annotations(_entry(tmp_path), _config("spots", spot_radius_um=49.5), spots, (400, 400))
    spot = found.spot(x, 100, mpp)
    assert (None if spot is None else spot["label"]) == label


FRAME = PixelBox(0, 0, 100, 80)


def _checked(tmp_path, *features, bounds=FRAME, spots=None, **changes) -> list:
    source = "polygons" if features else "spots"
    config = Tile.model_validate({"mpp": 1.0, "labels": {"source": source, "classes": CLASSES}, **changes})
    entry = _entry(tmp_path, annotations=write_geojson(tmp_path / "a.geojson", *features) if features else None)
    return check_annotations(load_polygons_and_spots(entry, config, spots, bounds), bounds)


INSIDE = [feature("tumour", box_ring(x, 10, x + 10, 20)) for x in range(0, 90, 10)]


@pytest.mark.parametrize(
    "features, kind, words",
    [
        ([*INSIDE, feature("tumour", box_ring(100, 10, 110, 20))], Note, "1 of 10 polygon(s), and 10.0% of their area"),
        ([*INSIDE[:4], feature("tumour", box_ring(200, 0, 201, 1))], Fault, "1 of 5 polygon(s), and 0.2%"),
        ([feature("tumour", box_ring(60, 0, 140, 40))], Fault, "0 of 1 polygon(s), and 50.0%"),
        ([feature("tumour", box_ring(4000, 0, 8000, 90))], Fault, "lie beyond x 0 to 100, y 0 to 80 px"),
    ],
    ids=["some", "of their number", "partly", "all"],
)
def test_polygons_beyond_their_slide_are_counted_and_many_are_a_fault(tmp_path, features, kind, words):
    (found,) = _checked(tmp_path, *features)
    assert isinstance(found, kind) and words in str(found)
    if kind is Fault:
        assert "tile.max_outside_fraction" in found.remedy
        (allowed,) = _checked(tmp_path, *features, max_outside_fraction=1.0)
        assert isinstance(allowed, Note)


def test_polygons_at_the_border_of_their_slide_say_nothing(tmp_path):
    assert _checked(tmp_path, *INSIDE, feature("stroma", box_ring(0, 0, 100.2, 80.2))) == []


def test_polygons_count_from_the_scanned_part_or_from_level_0_as_params_say(tmp_path):
    bounds, drawn = PixelBox(30, 20, 100, 80), feature("tumour", box_ring(5, 6, 9, 10))
    entry = _entry(tmp_path, annotations=write_geojson(tmp_path / "a.geojson", drawn))
    for origin, moved in (("bounds", (35, 26, 39, 30)), ("level0", (5, 6, 9, 10))):
        config = _config("polygons").model_copy(update={"annotations_origin": origin})
        found = load_annotations(entry, config, None, (200, 200), bounds)
        assert [polygon.bounds for _, polygon in found.regions] == [moved]
        said = check_annotations(found, bounds)
        assert [type(each) for each in said] == ([] if origin == "bounds" else [Fault])


def test_a_slide_without_a_polygon_of_a_label_is_a_fault_where_its_tiles_would_be_dropped(tmp_path):
    note, fault = _checked(tmp_path, feature(None, box_ring(0, 0, 9, 9)))
    assert isinstance(note, Note) and "no polygon has a class of tile.labels.classes" in fault.problem
    config = _config("polygons", unlabelled="keep")
    entry = _entry(tmp_path, annotations=tmp_path / "a.geojson")
    found = check_annotations(load_polygons_and_spots(entry, config, None, None), None)
    assert [type(each) for each in found] == [Note]


@pytest.mark.parametrize("kind", ["Point", "LineString"])
def test_a_class_of_points_or_lines_alone_is_a_fault_too(tmp_path, kind):
    coordinates = [5, 5] if kind == "Point" else [[5, 5], [9, 9]]
    bare = feature("tumour", box_ring(0, 0, 9, 9)) | {"geometry": {"type": kind, "coordinates": coordinates}}
    _, fault = _checked(tmp_path, bare)
    assert "no polygon has a class of tile.labels.classes" in fault.problem


@pytest.mark.parametrize(
    "side, bounds, kind",
    [
        (0.01, PixelBox(0, 0, 100, 80), Fault),
        (20, PixelBox(0, 0, 40_000, 30_000), Note),
        (20, PixelBox(0, 0, 900, 800), None),
    ],
)
def test_polygons_of_another_scale_are_told_by_their_size(tmp_path, side, bounds, kind):
    drawn = [feature("tumour", box_ring(k * side, 1, (k + 1) * side, 1 + side)) for k in range(3)]
    found = _checked(tmp_path, *drawn, bounds=bounds)
    assert [type(each) for each in found] == ([kind] if kind else [])
    if kind:
        assert f"the largest polygon has {side**2:.2g} px², and all lie within {3 * side:.3g} x" in str(found[0])


@pytest.mark.parametrize("source, refused", [("polygons", True), ("raster", True), ("slide", False)])
def test_classes_of_pixels_are_as_many_as_bytes_hold(source, refused):
    def labels(count: int) -> dict:
        return {"mpp": 1.0, "labels": {"source": source, "classes": [f"c{n}" for n in range(count)]}}

    Tile.model_validate(labels(254))
    if refused:
        with pytest.raises(
            ValueError, match=r"labels\.classes names 255, and of polygons and rasters 254 are the most"
        ):
            Tile.model_validate(labels(255))
    else:
        Tile.model_validate(labels(300))


@pytest.mark.parametrize("beyond, kind", [(0, None), (1, Note), (2, Fault), (10, Fault)])
def test_spots_beyond_their_slide_are_counted_and_many_are_a_fault(tmp_path, beyond, kind):
    x = [500.0] * beyond + [30.0] * (10 - beyond)
    spots = pd.DataFrame({"slide_id": "s", "x_level0_px": x, "y_level0_px": 40.0, "label": "tumour"})
    others = spots.assign(slide_id="other", x_level0_px=9e9)
    found = _checked(tmp_path, bounds=PixelBox(20, 20, 100, 80), spots=pd.concat([spots, others]))
    assert [type(each) for each in found] == ([kind] if kind else [])
    if kind:
        assert f"{beyond} of 10 spot(s) of slide 's' lie beyond what was scanned of it, x 20 to 120" in str(found[0])


def test_a_raster_of_what_was_scanned_lies_there_and_other_sizes_are_refused(tmp_path):
    ids = np.random.default_rng(0).integers(1, 3, (30, 40), dtype=np.uint8)
    Image.fromarray(ids).save(tmp_path / "m.png")
    whole = np.zeros((100, 200), np.uint8)
    whole[20:50, 50:90] = ids
    Image.fromarray(whole).save(tmp_path / "whole.png")
    box, bounds = PixelBox(40, 10, 70, 60), PixelBox(50, 20, 40, 30)
    for name in ("m.png", "whole.png"):
        entry = _entry(tmp_path, mask=tmp_path / name, instances=tmp_path / name)
        found = load_annotations(entry, _config("raster"), None, (200, 100), bounds)
        np.testing.assert_array_equal(found.ids(CLASSES, "raster", box, 1.0), whole[10:70, 40:110])
        np.testing.assert_array_equal(found.instance_ids(box, 1.0)[0], whole[10:70, 40:110])
    with pytest.raises(BadSlide, match=r"200 x 100 px.*The size of what was scanned will do as well, 41 x 30 px"):
        load_annotations(
            _entry(tmp_path, mask=tmp_path / "m.png"), _config("raster"), None, (200, 100), PixelBox(50, 20, 41, 30)
        )
