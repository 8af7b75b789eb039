"""Slides that nobody labelled stay, where params say so: their tiles teach without labels, and state none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from histoloom.data.manifest import read_manifest
from histoloom.data.store import UNKNOWN
from histoloom.errors import ManifestFaults
from tests.build import make_slide, make_study
from tests.stages import run, study_of


@pytest.fixture
def slides(folder):
    for number in range(6):
        make_slide(folder / f"data/slides/s{number}.svs", width=192, height=192, seed=number)
        Image.fromarray(np.full((192, 192), 1 + number % 2, np.uint8)).save(folder / f"data/slides/m{number}.png")
    return folder


def _rows(**by_number) -> list[dict]:
    rows = [
        {
            "slide_id": f"s{n}",
            "path": f"s{n}.svs",
            "patient_id": f"p{n}",
            "mask": f"m{n}.png",
            "label": "tumour",
            "split": split,
        }
        for n, split in enumerate(("train", "train", "train", "train", "val", "test"))
    ]
    for name, changes in by_number.items():
        rows[int(name[1:])] |= changes
    return rows


def _masked(**by_number) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "label"} for row in _rows(**by_number)]


RASTER = {
    "labels": {"source": "none", "classes": [], "unlabelled": "keep"},
    "masks": {"source": "raster", "classes": ["a", "b"]},
}
FROM_SLIDE = {"labels": {"source": "slide", "classes": ["tumour", "stroma"], "unlabelled": "keep"}}


@pytest.mark.parametrize(("tile", "lacking"), [(RASTER, {"mask": ""}), (FROM_SLIDE, {"label": ""})])
def test_a_slide_without_labels_stays_where_they_are_kept(slides, tile, lacking):
    rows = (_masked if tile is RASTER else _rows)(s1=lacking)
    params = make_study(".", rows, tile | {"tissue": {"min_fraction": 0.0}})
    found = run("tile", study_of(params))
    store = study_of(params).real()
    rows = store.rows()
    own, others = rows[rows["slide_id"] == "s1"], rows[rows["slide_id"] != "s1"]
    assert len(own) and own["label"].isna().all() and not own["masked"].any()
    if tile is RASTER:
        assert (store.read(own, "mask") == UNKNOWN).all() and others["masked"].all()
    else:
        assert (others["label"] == "tumour").all()
    assert found["tiles"] == len(rows)


def test_it_counts_for_no_fraction_of_the_labels(slides):
    labels = RASTER["labels"] | {"fraction": 0.5, "fraction_of": "slide"}
    params = make_study(
        ".", _masked(s0={"mask": ""}, s1={"mask": ""}), RASTER | {"labels": labels, "tissue": {"min_fraction": 0.0}}
    )
    run("tile", study_of(params))
    rows = study_of(params).real().rows(split="train")
    assert rows[rows["masked"]]["slide_id"].nunique() == 1, "half of the two that are annotated"
    assert not {"s0", "s1"} & {*rows[rows["masked"]]["slide_id"]}


@pytest.mark.parametrize(
    ("tile", "changes", "column"),
    [
        (RASTER | {"labels": {"source": "none", "classes": []}}, {"mask": ""}, "mask"),
        (FROM_SLIDE | {"labels": {"source": "slide", "classes": ["tumour"]}}, {"label": ""}, "label"),
        (FROM_SLIDE | {"masks": RASTER["masks"]}, {"label": ""}, "label"),
        (FROM_SLIDE | {"masks": RASTER["masks"]}, {"mask": ""}, "mask"),
    ],
)
def test_a_slide_that_is_labelled_in_part_or_may_not_lack_labels_is_a_fault(slides, tile, changes, column):
    params = make_study(".", (_rows if tile["labels"]["source"] == "slide" else _masked)(s1=changes), tile)
    with pytest.raises(ManifestFaults) as error:
        read_manifest(params.tile)
    (fault,) = error.value.faults
    assert fault.column == column and fault.row == 3 and "unlabelled: keep" in fault.remedy
