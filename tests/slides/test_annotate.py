"""Polygons, rasters and spots become labels and masks; what cannot is a fault with its number and remedy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.config import Tile
from pipeline.data.manifest import SlideEntry
from pipeline.slides.annotate import load_annotations
from pipeline.slides.open import BadSlide
from pipeline.slides.rasters import read_raster

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
