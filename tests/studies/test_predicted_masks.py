"""Masks that a learner predicted stand where nobody has annotated: as far as it was sure, never as truth, and never of what it may not have seen."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tifffile

from histoloom.data.lineage import Lineage, lineage_of_masks
from histoloom.data.plan import condition_sources, given_arrays
from histoloom.data.slide_entry import PREDICTION
from histoloom.data.store import UNKNOWN, TileStore
from histoloom.errors import HistoloomError, ManifestFaults
from histoloom.slides.open import slide_sha256
from histoloom.slides.predicted import PredictionFacts
from histoloom.studies.checks.validate import check_study
from tests.build import box_ring, feature, write_geojson
from tests.stages import study_of
from tests.studies.tiling import POLYGONS, SIDE, slide_row, study, tile_slides

MASKS = {"masks": {"source": "polygons", "classes": ["stroma", "tumour"], "least_certainty": 0.8}}
DOWN = 2
_SAW = Lineage(("p0",), ("s0",))


def write_prediction(number: int, lineage: Lineage = _SAW, **changes) -> str:
    """A prediction of a slide: its left half is tumour (1), its lower half is unsure. Its classes have another order than the study's."""
    folder, side = Path(f"data/slides/of-s{number}"), SIDE // DOWN
    folder.mkdir()
    ids, sure = np.zeros((side, side), np.uint8), np.full((side, side), 255, np.uint8)
    ids[:, : side // 2] = 1
    sure[side // 2 :] = 150
    tifffile.imwrite(folder / "mask.tif", ids)
    tifffile.imwrite(folder / "certainty.tif", sure)
    path = Path(f"data/slides/s{number}.svs")
    facts = PredictionFacts(
        path.name, slide_sha256(path), ("tumour", "stroma"), side, side, 1.0, 0, 0, DOWN, lineage.record
    )
    (folder / PREDICTION).write_text(json.dumps(asdict(facts) | changes))
    return f"of-s{number}/{PREDICTION}"


def rows_and_masks() -> tuple:
    store = TileStore("data/tiles")
    rows = store.rows()
    return rows, store.read(rows, "mask")


def annotated(number: int, **more) -> dict:
    return slide_row(number, annotations="a.geojson", **more)


@pytest.fixture
def drawn(slides):
    write_geojson("manifests/annotations/a.geojson", feature("stroma", box_ring(0, 0, SIDE, SIDE)))


def test_a_predicted_mask_is_known_where_the_learner_was_sure(drawn):
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    tile_slides(study([annotated(0), slide_row(1, predicted=write_prediction(1))], labels | MASKS).tile)
    rows, masks = rows_and_masks()
    ours = (rows["slide_id"] == "s0").to_numpy()
    assert rows["masked"].to_numpy(bool).tolist() == ours.tolist() and (masks[ours] == 1).all()
    assert rows["predicted"].to_numpy(bool).tolist() == (~ours).tolist()
    for row, mask in zip(rows[~ours].itertuples(), masks[~ours]):
        side = len(mask)
        y, x = row.y_level0_px + np.arange(side), row.x_level0_px + np.arange(side)
        wanted = np.where(x[None] < SIDE // 2, 2, 0) * np.ones((side, 1), int)  # the study's number of tumour
        wanted[y >= SIDE // 2] = UNKNOWN
        assert (mask == wanted).all()
    assert lineage_of_masks(TileStore("data/tiles")) == Lineage(("p0",), ("s0",))


def test_it_stands_in_place_of_hidden_annotations_and_of_no_others(drawn):
    labels = {"labels": POLYGONS["labels"] | {"unlabelled": "keep", "fraction": 0.5, "fraction_of": "patient"}}
    rows = [annotated(n, predicted=write_prediction(n), split="train") for n in range(3)]
    tile_slides(study(rows, labels | MASKS).tile)
    rows, masks = rows_and_masks()
    known = rows["masked"].to_numpy(bool)
    assert known.any() and not known.all() and (rows["predicted"].to_numpy(bool) == ~known).all()
    assert (masks[known] == 1).all() and set(np.unique(masks[~known])) == {0, 2, UNKNOWN}


def test_polygons_of_labels_are_no_annotation_of_masks(drawn):
    labels, masks = (
        {"labels": POLYGONS["labels"] | {"unlabelled": "keep"}},
        {"masks": MASKS["masks"] | {"source": "raster"}},
    )
    tile_slides(study([annotated(n, predicted=write_prediction(n)) for n in (1, 2)], labels | masks).tile)
    rows, found = rows_and_masks()
    assert not rows["masked"].any() and rows["predicted"].all() and (found != UNKNOWN).any()


def test_slides_whose_nuclei_are_told_apart_stand_beside_predicted_ones(drawn):
    """A tile that is made gets numbers of nuclei only where all that it could be made of have them."""
    nuclei = np.ones((SIDE, SIDE), np.uint8)
    tifffile.imwrite("data/slides/n.tif", nuclei)
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    masks = {"masks": MASKS["masks"] | {"source": "raster"}}
    rows = [slide_row(0, instances="n.tif", split="train"), slide_row(1, predicted=write_prediction(1), split="train")]
    params = study(rows, labels | masks, train_denoiser={"conditions": ["mask"]})
    tile_slides(params.tile)
    store = TileStore("data/tiles")
    assert store.has("instance", store.parts[0]) and given_arrays(store, params) == ("mask",)


def test_only_train_tiles_give_predicted_masks_as_conditions(drawn):
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    rows = [
        annotated(0, split="train"),
        *(slide_row(n, predicted=write_prediction(n), split=s) for n, s in ((1, "train"), (2, "test"))),
    ]
    params = study(rows, labels | MASKS, train_denoiser={"conditions": ["mask"]})
    tile_slides(params.tile)
    found = condition_sources(TileStore("data/tiles").rows(), params)
    assert {*found["slide_id"]} == {"s0", "s1"}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"slide_sha256": "another"}, "predicted of another file"),
        ({"classes": ["tumour"]}, "tile.masks.classes names stroma"),
        ({"downsample": None}, "doesn't say what was predicted"),
        ({"saw": {"groups": 3}}, "is no lineage record"),
    ],
)
def test_a_prediction_of_something_else_is_refused(drawn, changes, said):
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    params = study([annotated(0), slide_row(1, predicted=write_prediction(1, **changes))], labels | MASKS)
    with pytest.raises(HistoloomError, match=said):
        tile_slides(params.tile)


def test_a_learner_that_saw_a_held_out_patient_is_refused_before_anything_is_cut(drawn):
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    place = write_prediction(1, Lineage(("p2",), ("s2",)))
    rows = [annotated(0, split="train"), slide_row(1, predicted=place, split="train"), annotated(2, split="test")]
    params = study(rows, labels | MASKS)
    faults = [str(fault) for fault in check_study(study_of(params))]
    assert any("'p2' is held out, and the model of predicted of 's1'" in fault for fault in faults), faults


def test_only_the_file_that_states_a_prediction_is_taken(drawn):
    write_prediction(1)
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    with pytest.raises(ManifestFaults, match="is not what a prediction states itself in"):
        tile_slides(study([annotated(0), slide_row(1, predicted="of-s1/mask.tif")], labels | MASKS).tile)
