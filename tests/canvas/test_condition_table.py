"""Conditions that a slide states point by point, in a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from histoloom.canvas.condition_table import read_condition_table
from histoloom.data.slide_fields import parsed, written
from histoloom.errors import HistoloomError
from tests.build import write_csv
from tests.canvas.stating import WITH_COHORT, params_of, write


def test_a_grid_takes_a_tiles_conditions_and_its_groups_are_the_slides_ancestors(here):
    rows = [{"row": 0, "col": 0, "tile_id": "slide_2_0"}, {"row": 0, "col": 1, "label": "right"}]
    write_csv("field.csv", rows)
    found = write({"condition_grid": "field.csv"})
    assert found.source_groups == ["b"] and [p["label"] for p in found.points[0]] == ["left", "right"]
    vectors = found.inputs.grid.at(np.array([5.0, 5.0]), np.array([0.0, 56.0])).vector
    assert torch.allclose(vectors, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert not found.inputs.nulls.vector.any()


def test_a_grid_states_columns_of_cohort_and_number_and_leaves_others_to_the_slide(here):
    write_csv("field.csv", [{"row": 0, "col": 0, "cohort.site": "a", "number.age": "7"}, {"row": 0, "col": 1}])
    whole = {"cohort": {"site": "b", "scanner": "x"}, "number": {"weight": 70}}
    params = params_of({"condition_grid": "field.csv", **whole}, ("label", "cohort", "number"))
    table = read_condition_table(params.sample_slides.slides[0], params)
    assert [parsed(text) for text in table["cohort"]] == [{"site": "a", "scanner": "x"}, {"site": "b", "scanner": "x"}]
    assert [parsed(text) for text in table["number"]] == [{"age": 7.0, "weight": 70}, {"weight": 70}]


def test_of_a_tile_s_cohort_a_row_may_change_one_column(here):
    write_csv("field.csv", [{"row": 0, "col": 0, "cohort.site": "a", "tile_id": "slide_2_0"}])
    of_tile = {"cohort": written({"site": "b", "scanner": "x"})}
    found = write({"condition_grid": "field.csv"}, encoders=WITH_COHORT, rows=of_tile)
    assert parsed(found.points[0][0]["cohort"]) == {"site": "a", "scanner": "x"}


@pytest.mark.parametrize("blank", [0, 2])
def test_a_cohort_that_no_train_tile_has_is_refused(here, blank):
    write_csv("field.csv", [{"row": 0, "col": 0, "cohort.site": "a"}, {"row": 0, "col": 1, "cohort.site": "c"}])
    head, *lines = Path("field.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("field.csv").write_text(head + "\n" * blank + "".join(lines), encoding="utf-8")
    said = rf"row {3 + blank}, column 'cohort.site': no train tile has 'site=c'.*site=a, site=b"
    with pytest.raises(HistoloomError, match=said):
        write({"condition_grid": "field.csv"}, encoders=WITH_COHORT)


def test_a_slide_s_own_cohort_must_be_of_a_train_tile(here):
    with pytest.raises(HistoloomError, match="no train tile has 'site=c'"):
        write({"cohort": {"site": "c"}}, encoders=WITH_COHORT)


def test_a_tile_that_is_not_there_is_refused(here):
    write_csv("field.csv", [{"row": 0, "col": 0, "tile_id": "slide_9_9"}])
    with pytest.raises(HistoloomError, match="row 2, column 'tile_id': 'slide_9_9' isn't there"):
        write({"condition_grid": "field.csv"})
