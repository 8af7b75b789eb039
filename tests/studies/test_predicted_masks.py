"""Masks that a learner predicted stand where nobody has annotated: as far as it was sure, never as truth, and never of what it may not have seen."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tifffile

from histoloom.data.commit import sha256_file
from histoloom.data.lineage import Lineage, lineage_of_masks
from histoloom.data.pixel_box import PixelBox
from histoloom.data.plan import condition_sources, given_arrays
from histoloom.data.slide_entry import PREDICTION
from histoloom.data.store import UNKNOWN, TileStore
from histoloom.errors import HistoloomError, ManifestFaults
from histoloom.slides.open import slide_sha256
from histoloom.slides.predicted import CERTAINTY, MASK, PredictionFacts, read_predicted
from histoloom.studies.checks.validate import check_study
from tests.build import box_ring, feature, write_geojson
from tests.stages import study_of
from tests.studies.tiling import POLYGONS, SIDE, slide_row, study, tile_slides

MASKS = {"masks": {"source": "polygons", "classes": ["stroma", "tumour"], "least_certainty": 0.8}}
DOWN = 2
ODD = [
    ("downsample", 0), ("downsample", float("nan")), ("downsample", -2), ("left_px", float("inf")), ("mpp", -1), ("width_px", 1.5),
    ("classes", ["tumour", "tumour"]), ("classes", [f"c{n}" for n in range(300)]),
]  # fmt: skip
"""Numbers and names that no prediction states."""
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
    hashes = [sha256_file(folder / name) for name in (MASK, CERTAINTY)]
    facts = PredictionFacts(
        path.name, slide_sha256(path), 1.0, ("tumour", "stroma"), side, side, DOWN, 0, 0, DOWN, *hashes, lineage.record
    )  # fmt: skip
    (folder / PREDICTION).write_text(json.dumps(asdict(facts) | changes))
    return f"of-s{number}/{PREDICTION}"


def rows_and_masks() -> tuple:
    store = TileStore("data/tiles")
    rows = store.rows()
    return rows, store.read(rows, "mask")


def shown(masks: np.ndarray) -> np.ndarray:
    """Of which tiles something is known."""
    return (masks != UNKNOWN).any((1, 2))


def annotated(number: int, **more) -> dict:
    return slide_row(number, annotations="a.geojson", **more)


@pytest.fixture
def drawn(slides):
    write_geojson("manifests/annotations/a.geojson", feature("stroma", box_ring(0, 0, SIDE, SIDE)))


def test_a_predicted_mask_is_known_where_the_learner_was_sure(drawn):
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    rows = [annotated(0, split="train"), slide_row(1, predicted=write_prediction(1), split="train")]
    tile_slides(study(rows, labels | MASKS).tile)
    rows, masks = rows_and_masks()
    ours = (rows["slide_id"] == "s0").to_numpy()
    assert rows["masked"].to_numpy(bool).tolist() == ours.tolist() and (masks[ours] == 1).all()
    assert rows["predicted"].to_numpy(bool).tolist() == (~ours & shown(masks)).tolist()
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
    assert known.any() and not known.all() and (rows["predicted"].to_numpy(bool) == (~known & shown(masks))).all()
    assert (masks[known] == 1).all() and set(np.unique(masks[~known])) == {0, 2, UNKNOWN}


def test_polygons_of_labels_are_no_annotation_of_masks(drawn):
    labels, masks = (
        {"labels": POLYGONS["labels"] | {"unlabelled": "keep"}},
        {"masks": MASKS["masks"] | {"source": "raster"}},
    )
    tile_slides(study([annotated(n, predicted=write_prediction(n)) for n in (1, 2)], labels | masks).tile)
    rows, found = rows_and_masks()
    assert not rows["masked"].any() and (rows["predicted"] == shown(found)).all() and rows["predicted"].any()


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
        ({"saw": {"groups": 3}}, "doesn't say whose tissue"),
        ({"slide_mpp": 0.25}, "Predict it again with --slide-mpp 1"),
        ({"mask_sha256": "another"}, "is not the file that was predicted"),
        *(({name: value}, "doesn't say what was predicted") for name, value in ODD),
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
    assert any("'p2' is held out, and the model of the column predicted of 's1'" in fault for fault in faults), faults
    rows = [annotated(n, split=s, predicted=place if n == 1 else "") for n, s in enumerate(("train", "train", "test"))]
    unused = study(rows, labels | MASKS)
    assert not any("'p2'" in str(fault) for fault in check_study(study_of(unused))), "no tile would have its mask"
    tile_slides(unused.tile)
    assert lineage_of_masks(TileStore("data/tiles")) == Lineage()


def test_who_is_sure_of_nothing_predicts_nothing(drawn):
    place = write_prediction(1)
    masks = {"masks": MASKS["masks"] | {"least_certainty": 1.0}}
    facts = json.loads(Path("data/slides", place).read_text())
    folder = Path("data/slides", place).parent
    tifffile.imwrite(folder / CERTAINTY, np.full((SIDE // DOWN, SIDE // DOWN), 150, np.uint8))
    (folder / PREDICTION).write_text(json.dumps(facts | {"certainty_sha256": sha256_file(folder / CERTAINTY)}))
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    tile_slides(study([annotated(0), slide_row(1, predicted=place)], labels | masks).tile)
    rows, found = rows_and_masks()
    assert not rows["predicted"].any() and (found[rows["slide_id"] == "s1"] == UNKNOWN).all()


def test_nuclei_that_are_hidden_are_islands_of_the_predicted_mask(drawn):
    """And those of a slide whose masks alone are predicted are its own."""
    tifffile.imwrite("data/slides/n.tif", np.arange(SIDE * SIDE, dtype=np.int32).reshape(SIDE, SIDE))
    labels = {"labels": {"source": "none"}}
    tile_slides(
        study(
            [slide_row(n, label="", predicted=write_prediction(n), instances="n.tif", split="train") for n in (0, 1)],
            labels | MASKS,
        ).tile
    )
    store = TileStore("data/tiles")
    rows = store.rows()
    assert rows["predicted"].any() and (np.diff(store.read(rows, "instance")[0].ravel()[:9]) == 1).all()
    hidden = {"labels": {"source": "none", "unlabelled": "keep", "fraction": 0.5, "fraction_of": "patient"}}
    tile_slides(
        study(
            [
                annotated(n, label="", predicted=f"of-s{n}/{PREDICTION}", instances="n.tif", split="train")
                for n in (0, 1)
            ],
            hidden | MASKS,
        ).tile
    )
    store = TileStore("data/tiles")
    rows = store.rows()
    predicted = rows[rows["predicted"]]
    masks, numbers = store.read(predicted, "mask"), store.read(predicted, "instance")
    assert len(predicted) and len(predicted) < len(rows)
    assert ((numbers > 0) == (masks == 2)).all() and numbers.max() == 1


def test_a_label_budget_is_spent_on_slides_that_somebody_annotated(drawn):
    labels = {"labels": {"source": "none", "fraction": 0.3, "fraction_of": "patient"}}
    rows = [
        annotated(0, label="", split="train"),
        *(slide_row(n, label="", predicted=write_prediction(n), split="train") for n in (1, 2)),
    ]
    for seed in range(4):
        tile_slides(study(rows, labels | MASKS).tile, seed=seed)
        found, _ = rows_and_masks()
        assert found[found["slide_id"] == "s0"]["masked"].all()


def test_a_plan_asks_for_classes_that_predictions_alone_may_show(drawn):
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    rows = [
        annotated(0, split="train"),
        slide_row(1, predicted=write_prediction(1), split="train"),
        annotated(2, split="test"),
    ]
    plan = {"target": "none", "requests": [{"name": "a", "tiles": 2, "where": {"contains": {"tumour": 0.2}}}]}
    params = study(rows, labels | MASKS, train_denoiser={"conditions": ["mask"]}, plan=plan)
    assert not [str(fault) for fault in check_study(study_of(params)) if "no train slide" in str(fault)]


@pytest.mark.parametrize("source", ["none", "stain"])
def test_a_prediction_that_nothing_reads_is_said_and_counts_for_nothing(drawn, source):
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    masks = {"masks": {"source": source, "classes": ["nucleus"]} if source == "stain" else {"source": "none"}}
    place = write_prediction(1, Lineage(("p2",), ("s2",)))
    rows = [slide_row(0, split="train"), slide_row(1, predicted=place, split="train"), slide_row(2, split="test")]
    params = study(rows, labels | masks)
    found = [str(fault) for fault in check_study(study_of(params))]
    assert any("which are not read" in fault for fault in found) and not any("'p2'" in fault for fault in found)
    tile_slides(params.tile)
    assert lineage_of_masks(TileStore("data/tiles")) == Lineage()


def test_beyond_what_was_looked_at_nothing_is_known(drawn):
    """The masks begin 100 px to the right, and are a quarter as wide as the slide."""
    path = Path("data/slides", write_prediction(0, left_px=100))
    found = read_predicted(path, ("tumour",), 0.5, slide_sha256(Path("data/slides/s0.svs")), 1.0)
    ids = found.nearest(PixelBox(0, 0, SIDE, SIDE), 1.0)
    assert (ids[:, :100] == UNKNOWN).all() and (ids[:, 100 : 100 + SIDE // 2 - 1] == 1).all()


def test_only_the_file_that_states_a_prediction_is_taken(drawn):
    write_prediction(1)
    labels = {"labels": {"source": "slide", "classes": ["tumour"]}}
    with pytest.raises(ManifestFaults, match="does not say what was predicted"):
        tile_slides(study([annotated(0), slide_row(1, predicted="of-s1/mask.tif")], labels | MASKS).tile)
