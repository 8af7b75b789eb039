"""What `validate` knows of classes before a tile is cut: which ones train can't show, and what the plan then can't make."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from histoloom.data.study_folder import Study
from histoloom.errors import Fault, Note, faults_among, notes_among
from histoloom.studies.checks.validate import check_study
from tests.build import box_ring, feature, make_slide, make_study, write_csv, write_geojson

SIDE = 128
SPLITS = ("train", "train", "val", "test")
CLASSES = ["tumour", "rare", "misspelt"]


@pytest.fixture
def slides(folder):
    for number in range(4):
        make_slide(folder / f"data/slides/s{number}.svs", width=SIDE, height=SIDE, seed=number)
    return folder


def _rows(**columns) -> list[dict]:
    """Four slides, of which the last, in test, is to show what is rare."""
    rows = [{"slide_id": f"s{n}", "path": f"s{n}.svs", "patient_id": f"p{n}", "split": SPLITS[n]} for n in range(4)]
    return [row | {name: of(n) for name, of in columns.items()} for n, row in enumerate(rows)]


def _name(number: int) -> str:
    return "rare" if number == 3 else "tumour"


def _slide_labels(source: str) -> list[dict]:
    return _rows(label=_name)


def _spots(source: str) -> list[dict]:
    place = {"x_level0_px": 20, "y_level0_px": 20}
    write_csv(
        "manifests/spots.csv", [{"spot_id": f"x{n}", "slide_id": f"s{n}", "label": _name(n)} | place for n in range(4)]
    )
    return _rows()


def _polygons(source: str) -> list[dict]:
    for n in range(4):
        write_geojson(f"manifests/annotations/{n}.geojson", feature(_name(n), box_ring(0, 0, 90, 90)))
    return _rows(annotations=lambda n: f"{n}.geojson")


def _masks(source: str) -> list[dict]:
    for n in range(4):
        raster = np.ones((SIDE, SIDE), np.uint8)
        raster[-1, -1] = 2 if n == 3 else 1
        Image.fromarray(raster).save(f"data/slides/m{n}.png")
    return _rows(mask=lambda n: f"m{n}.png")


SOURCES = {"slide": _slide_labels, "spots": _spots, "polygons": _polygons, "raster": _masks}
RARE = "1 test slide(s), and no train slide, show 'rare': it can't be learned or made."
MISSPELT = "look at the spelling: no slide whose labels are visible shows 'misspelt': it can't be learned or made."


HELD_OUT = "no test slide of 'tumour' (2 in train, 1 in val): nothing is measured of it there. Move a patient of it, such as tile.split.assign: {p0: test}."  # fmt: skip


def _found(source: str, labels: dict | None = None, plan: dict | None = None, **tile) -> list:
    stated = {"labels": {"source": source, "classes": CLASSES} | (labels or {}), "spots": "manifests/spots.csv"}
    make_study(".", SOURCES[source](source), stated | tile, plan=plan or {})
    return check_study(Study())


@pytest.mark.parametrize("source", SOURCES)
def test_a_class_that_train_cannot_show_is_said(slides, source):
    said = (RARE, MISSPELT) if source == "raster" else (RARE, MISSPELT, HELD_OUT)  # the raster of test shows both
    assert _found(source) == [Note("params.yaml", text, None, "tile.labels.classes") for text in said]


@pytest.mark.parametrize("source", ["polygons", "raster"])
def test_a_mask_class_that_is_never_drawn_is_said(slides, source):
    masks = {"source": source, "classes": ["tumour", "rare", "misspelt"]}
    found = _found(
        source, {"source": "none", "unlabelled": "keep"}, {"target": "none", "evaluation_tiles": 4}, masks=masks
    )
    said = (RARE, MISSPELT) if source == "raster" else (RARE, MISSPELT, HELD_OUT)  # the raster of test shows both
    assert found == [Note("params.yaml", text, None, "tile.masks.classes") for text in said]


def test_a_mask_class_that_only_train_draws_is_said_with_a_patient_to_move(slides):
    rows = _masks("raster")
    for number in (0, 1):
        Image.fromarray(np.full((SIDE, SIDE), 2, np.uint8)).save(f"data/slides/m{number}.png")
    Image.fromarray(np.ones((SIDE, SIDE), np.uint8)).save("data/slides/m3.png")
    make_study(
        ".", rows, {"labels": {"source": "none", "unlabelled": "keep"}, "masks": {"source": "raster", "classes": CLASSES[:2]}},
        plan={"target": "none", "evaluation_tiles": 4},
    )  # fmt: skip
    said = [note.fact for note in notes_among(check_study(Study())) if "'rare'" in note.fact]
    assert [line.split(":")[0] for line in said] == [
        "no val slide of 'rare' (2 in train, 0 in test)",
        "no test slide of 'rare' (2 in train, 0 in val)",
    ]
    assert "assign: {p0: val}" in said[0] and "Train has no patient of 'rare' to spare" in said[1]


def test_labels_that_the_fraction_hides_do_not_show_a_class(slides):
    rows = [row | {"split": "train", "label": f"c{n}"} for n, row in enumerate(_rows())]
    labels = {"source": "slide", "classes": ["c0", "c1", "c2", "c3"], "fraction": 0.5, "fraction_of": "slide"}
    make_study(".", rows, {"labels": labels})
    assert sum("no slide whose labels are visible" in note.fact for note in notes_among(check_study(Study()))) == 2


@pytest.mark.parametrize(
    "plan, column, problem",
    [
        ({"classes": ["rare"]}, "plan.classes", "'rare' is on no train slide"),
        (
            {"requests": [{"name": "r", "tiles": 2, "where": {"label": "rare"}}]},
            "plan.requests[0].where",
            "no train slide",
        ),
        (
            {"requests": [{"name": "r", "tiles": 2, "where": {"label": "misspelt"}, "purpose": "evaluate"}]},
            "plan.requests[0].where",
            "no test slide",
        ),
    ],
)
def test_what_the_plan_would_refuse_is_a_fault(slides, plan, column, problem):
    (fault,) = [each for each in _found("slide", plan=plan) if isinstance(each, Fault)]
    assert fault.column == column and problem in fault.problem


def test_what_the_plan_can_make_is_no_fault(slides):
    request = {"name": "r", "tiles": 2, "where": {"label": "rare"}, "purpose": "evaluate"}
    assert not [each for each in _found("slide", plan={"requests": [request]}) if isinstance(each, Fault)]


def test_a_study_without_labels_has_no_class_in_deficit(slides):
    (note,) = notes_among(_found("slide", {"source": "none", "unlabelled": "keep"}))
    assert note.column == "plan.target" and "plan will refuse it" in note.fact


def test_held_out_conditions_are_asked_for_where_nobody_is_held_out(slides):
    rows = [row | {"split": "train", "label": "tumour"} for row in _rows()]
    make_study(".", rows, {"labels": {"source": "slide", "classes": ["tumour"]}}, plan={"evaluation_tiles": 4})
    (fault,) = [each for each in faults_among(check_study(Study())) if each.where == "params.yaml, tile.split"]
    assert "no group is in val or test" in fault.problem and "plan.evaluation_tiles" in fault.problem
