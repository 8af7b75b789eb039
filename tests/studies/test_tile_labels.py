"""What the tiles of a store are labelled and masked with, end to end in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoloom.config import Tile
from histoloom.data.store import UNKNOWN, TileStore
from histoloom.slides.describe import describe
from tests.build import (
    box_ring,
    feature,
    make_scanned_part,
    write_csv,
    write_geojson,
)
from tests.studies.tiling import POLYGONS, ROWS, SIDE, slide_row, slides_report, study, tile_slides

MASKS = {"masks": {"source": "polygons", "classes": ["stroma", "tumour"]}}


def test_polygons_label_tiles_and_make_masks(slides):
    write_geojson(
        "manifests/annotations/a.geojson",
        feature("tumour", box_ring(0, 0, 128, SIDE)),
        feature("stroma", box_ring(128, 0, 320, SIDE)),
    )
    rows = [slide_row(n, annotations="a.geojson") for n in range(2)]
    tile_slides(study(rows, POLYGONS | MASKS | {"caption": "{composition}"}).tile)
    store = TileStore("data/tiles")
    found, masks = store.rows(), store.read(store.rows(), "mask")
    x = found["x_level0_px"]
    assert (found["label"] == np.where(x < 128, "tumour", "stroma")).all() and x.max() < 320
    assert found["caption"].str.startswith(("mostly tumour", "mostly stroma")).all()
    inner = masks[:, 2:-2, 2:-2]
    assert (inner == np.where(x < 128, 2, 1)[:, None, None]).all()


@pytest.mark.parametrize("kept", ["drop", "keep"])
def test_tiles_without_a_label_are_dropped_or_kept(slides, kept):
    write_geojson("manifests/annotations/a.geojson", feature("tumour", box_ring(0, 0, 90, SIDE)))
    labels = POLYGONS["labels"] | {"unlabelled": kept, "min_fraction": 0.6}
    metrics = tile_slides(study([slide_row(n, annotations="a.geojson") for n in range(2)], {"labels": labels}).tile)
    rows = TileStore("data/tiles").rows()
    assert set(rows["label"].dropna()) == {"tumour"}
    assert rows["label"].isna().any() == (kept == "keep")
    assert metrics["tiles"] == len(rows)


def test_a_class_without_train_tiles_is_said_and_measured(slides, capsys):
    rows = [slide_row(n, split="test" if n == 2 else "train", label="stroma" if n == 2 else "tumour") for n in range(3)]
    labels = {"source": "slide", "classes": ["tumour", "stroma", "misspelt"]}
    metrics = tile_slides(study(rows, {"labels": labels}).tile)
    said = " ".join(capsys.readouterr().err.split())
    assert metrics["classes_without_train_tiles"] == ["stroma", "misspelt"]
    assert f"no train tile of 'stroma' ({metrics['tiles_by_split']['test']['stroma']} in test)" in said
    assert "no train tile of 'misspelt' (nor in val or test)" in said and "no train tile of 'tumour'" not in said


def test_a_class_that_a_held_out_split_lacks_is_said_and_measured(slides, capsys):
    split, label = ("train", "train", "test"), ("tumour", "stroma", "stroma")
    metrics = tile_slides(study([slide_row(n, split=split[n], label=label[n]) for n in range(3)]).tile)
    assert metrics["classes_without_held_out_tiles"] == {"test": ["tumour"]}
    said = " ".join(capsys.readouterr().err.split())
    assert f"no test tile of 'tumour' ({metrics['tiles_by_split']['train']['tumour']} in train, 0 in val)" in said
    assert "no val tile" not in said  # as no group is in val


def test_splits_without_a_group_or_a_tile_are_said(slides, capsys):
    rows = [slide_row(n, patient_id="p") for n in range(2)]
    tile_slides(study(rows, {"split": {"group": "slide"}}).tile)
    said = " ".join(capsys.readouterr().err.split())
    assert "tile: no group is in test: the split group is the slide (tile.split.group), and there are 2" in said
    rows = [slide_row(n, split=split) for n, split in enumerate(("train", "val", "test"))]
    Path("data/slides/s2.svs").write_bytes(b"no slide")
    tile_slides(study(rows, {"max_bad_slides": 1}).tile)
    assert "tile: no tile is in test: none of its groups gave one ('p2')" in " ".join(capsys.readouterr().err.split())


def test_rasters_label_tiles_and_keep_instances(slides):
    ids = np.zeros((SIDE, SIDE), np.uint8)
    ids[:, :128], ids[:, 128:] = 1, 2
    Image.fromarray(ids).save("data/slides/m.png")
    Image.fromarray(np.arange(SIDE * SIDE, dtype=np.int32).reshape(SIDE, SIDE)).save("data/slides/i.tif")
    rows = [slide_row(n, mask="m.png", instances="i.tif") for n in range(2)]
    raster = {"source": "raster", "classes": ["tumour", "stroma"]}
    tile_slides(study(rows, {"labels": raster, "masks": raster}).tile)
    store = TileStore("data/tiles")
    found = store.rows()
    assert (found["label"] == np.where(found["x_level0_px"] < 128, "tumour", "stroma")).all()
    first = store.read(found, "instance")[:, 0, 0]
    assert (first == found["y_level0_px"] * SIDE + found["x_level0_px"]).all()
    assert (store.read(found, "mask") == np.where(found["x_level0_px"] < 128, 1, 2)[:, None, None]).all()


def test_spots_label_the_tiles_near_them(slides):
    spots = [("s0", 160, 160, "tumour"), ("s0", 224, 160, "stroma"), ("s1", 160, 160, "stroma")]
    keys = ("slide_id", "x_level0_px", "y_level0_px", "label")
    write_csv("manifests/spots.csv", [{"spot_id": i} | dict(zip(keys, spot)) for i, spot in enumerate(spots)])
    labels = {"source": "spots", "classes": ["tumour", "stroma"], "spot_radius_um": 5}
    tile_slides(study(ROWS[:2], {"labels": labels, "spots": "manifests/spots.csv"}).tile)
    found = TileStore("data/tiles").rows()
    got = set(found[["slide_id", "x_level0_px", "y_level0_px", "label"]].itertuples(index=False, name=None))
    assert got == {(slide, x - 32, y - 32, label) for slide, x, y, label in spots}


def test_spots_make_masks_of_regions_and_nuclei_lie_over_them(slides):
    """Two spots of s0: the border lies half-way between them, and far from both nothing is known."""
    spots = [("s0", 128, 192, "tumour"), ("s0", 256, 192, "stroma"), ("s1", 192, 192, "tumour")]
    keys = ("slide_id", "x_level0_px", "y_level0_px", "label")
    write_csv("manifests/spots.csv", [{"spot_id": i} | dict(zip(keys, spot)) for i, spot in enumerate(spots)])
    labels = {"source": "spots", "classes": ["tumour", "stroma"], "spot_radius_um": 110, "unlabelled": "keep"}
    found = {}
    for classes in (["stroma", "tumour"], ["stroma", "tumour", "nucleus"], ["stroma", "nucleus"]):
        masks = {"source": "spots", "classes": classes}
        config = {"mpp": 1.0, "labels": labels, "masks": masks, "spots": "manifests/spots.csv"}
        tile_slides(study(ROWS[:2], config).tile)
        store = TileStore("data/tiles")
        rows = store.rows()
        rows = rows[rows["slide_id"] == "s0"]
        found[tuple(classes)] = np.full((SIDE, SIDE), -1)
        for (x, y), mask in zip(rows[["x_level0_px", "y_level0_px"]].to_numpy(), store.read(rows, "mask")):
            found[tuple(classes)][y : y + len(mask), x : x + len(mask)] = mask
    plain, nuclei, fewer = found.values()
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    far, near = (np.minimum(*(np.hypot(x - at, y - 192) for at in (128, 256))) > r for r in (115, 105))
    cut, border = plain >= 0, np.abs(x - 192) < 4
    sure = cut & ~near & ~border
    assert (plain[sure] == np.where(x < 192, 2, 1)[sure]).all()
    assert cut[far].any() and (plain[cut & far] == UNKNOWN).all()
    assert (nuclei == 3).any() and (nuclei[nuclei != 3] == plain[nuclei != 3]).all()
    assert np.isin(fewer[sure & (x < 188)], (0, 2)).all()  # tumour is background here


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"labels": {"source": "slide", "classes": ["tumour"]}}, "needs labels.source: spots"),
        ({"masks": {"source": "spots", "classes": ["fat"]}}, "'fat', which is no label of spots"),
        ({"labels": {"source": "spots", "classes": ["tumour", "nucleus"]}}, "finds nucleus by stain"),
    ],
)
def test_masks_of_spots_that_cant_be_made_are_told(change, said):
    config = {"mpp": 1.0, "masks": {"source": "spots", "classes": ["tumour"]}}
    with pytest.raises(ValueError, match=said):
        Tile.model_validate(config | {"labels": {"source": "spots", "classes": ["tumour"]}} | change)


@pytest.mark.parametrize(
    "fractions, label, tissue_fraction, words",
    [
        ({"a": 0.7, "b": 0.3}, "a", 1.0, "mostly a, b"),
        ({"a": 0.5, "b": 0.1, "c": 0.01}, "a", 0.5, "a, some b, open space"),
        ({}, "a", 1.0, "a"),
        ({}, None, 1.0, "tissue"),
    ],
)
def test_composition_in_words(fractions, label, tissue_fraction, words):
    assert describe(fractions, label, tissue_fraction) == words


def test_tiles_of_a_scanned_part_have_the_labels_that_were_drawn_on_it(folder):
    """QuPath counts from the part's corner; rows say level 0."""
    tissue = np.zeros((256, 256, 3), np.uint8)
    tissue[:, :128], tissue[:, 128:] = (200, 100, 150), (130, 80, 160)
    (folder / "data/slides").mkdir(parents=True)
    make_scanned_part(folder / "data/slides/s0.scn", tissue, 128, 64, (512, 512))
    halves = [feature("tumour", box_ring(0, 0, 128, 256)), feature("stroma", box_ring(128, 0, 256, 256))]
    write_geojson("manifests/annotations/a.geojson", *halves, feature(None, box_ring(0, 0, 256, 256)))
    labels = {"source": "polygons", "classes": ["tumour", "stroma"]}
    tissue_of = {"mpp": 4.0, "min_area_um2": 0.0}
    settings = {"mpp": 0.5, "labels": labels, "split": {"group": "slide"}, "tissue": tissue_of}
    params = study([slide_row(0, path="s0.scn", annotations="a.geojson", label="")], settings)
    metrics = tile_slides(params.tile)
    (said,) = metrics["left_out"]
    assert "1 polygon(s) without a class" in said
    rows = TileStore("data/tiles").rows()
    assert len(rows) == 16
    assert (rows["label"] == np.where(rows["x_level0_px"] < 128 + 128, "tumour", "stroma")).all()
    assert (rows["x_level0_px"].min(), rows["y_level0_px"].min()) == (128, 64)
    (report,) = slides_report().values()
    assert (report["bounds_x_level0_px"], report["bounds_y_level0_px"]) == ("128", "64")
