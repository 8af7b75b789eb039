"""Cohorts and numbers: read from columns of slides.csv, fitted to train tiles alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.conditions.cohort import CohortCondition
from histoloom.conditions.condition import FitJob, Source
from histoloom.conditions.number import NumberCondition
from histoloom.config import Params
from histoloom.data.manifest import Manifest
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.slide_fields import parsed, written
from histoloom.errors import HistoloomError
from tests.build import write_csv

FIELDS = [{"site": "A", "age": "40"}, {"site": "B", "age": "60"}, {"site": "B"}, {"site": "C", "age": "80"}]
ROWS = pd.DataFrame(
    {"slide_fields": [written(fields) for fields in FIELDS], "dataset": ["here", "here", None, "there"]}
)


def params_of(**columns: list[str]) -> Params:
    return Params.model_validate(
        {
            "tile": {"mpp": 1.0, "labels": {"source": "slide", "classes": ["tumour"]}},
            "train_encoders": {name: {"columns": found} for name, found in columns.items()},
            "train_denoiser": {"conditions": ["label", *columns]},
        }
    )


def fitted(condition, params: Params, train: int = 3):
    """Fitted to the first rows, and then loaded."""
    store = SimpleNamespace(rows=lambda: ROWS)
    done = condition.fit(FitJob(params, store, ROWS.head(train), "cpu", Path(), Path(), Path()))
    return condition.load(Source((), 8, Path(), done.facts)), done


@given(st.dictionaries(st.text(min_size=1), st.text(min_size=1) | st.floats(allow_nan=False, allow_infinity=False)))
def test_fields_are_read_as_they_were_written(fields):
    assert parsed(written(fields)) == fields
    assert parsed(None) == parsed(np.nan) == parsed("") == {}


def test_a_cohort_is_one_hot_over_what_train_tiles_have_and_others_are_the_null(capsys):
    params = params_of(cohort=["site"])
    condition, done = fitted(CohortCondition, params)
    assert condition.channels == ("site=A", "site=B") and done.metrics["unseen"] == ["site=C"]
    assert "held-out tiles of site=C are given none" in " ".join(capsys.readouterr().err.split())
    rows = ROWS.assign(cohort=CohortCondition.stated(ROWS, params))
    assert condition.arrays(rows, None)["cohort"].tolist() == [[1, 0], [0, 1], [0, 1], [0, 0]]
    assert not condition.arrays(rows.assign(cohort=None), None)["cohort"].any()


def test_the_data_set_is_a_cohort_too():
    condition, _ = fitted(CohortCondition, params_of(cohort=["dataset", "site"]), train=4)
    assert condition.channels == ("dataset=here", "dataset=there", "site=A", "site=B", "site=C")


def test_numbers_are_standardised_on_train_tiles_and_say_whether_they_are_given():
    params = params_of(number=["age"])
    condition, done = fitted(NumberCondition, params)
    assert condition.channels == ("age", "age given") and done.metrics["train_tiles"] == {"age": 2}
    rows = ROWS.assign(number=NumberCondition.stated(ROWS, params))
    assert condition.arrays(rows, None)["number"].tolist() == [[-1, 1], [1, 1], [0, 0], [3, 1]]
    assert not condition.arrays(rows.assign(number=None), None)["number"].any()


@pytest.mark.parametrize(
    "condition, name, column, train",
    [(CohortCondition, "cohort", "scanner", 3), (NumberCondition, "number", "weight", 3)],
)
def test_a_column_that_no_train_slide_fills_in_is_an_error(condition, name, column, train):
    with pytest.raises(HistoloomError, match=f"No train slide states '?{column}"):
        fitted(condition, params_of(**{name: [column]}), train)


def test_tiles_that_were_cut_before_are_to_be_cut_again():
    with pytest.raises(HistoloomError, match="dvc repro tile"):
        CohortCondition.stated(ROWS.drop(columns="slide_fields"), params_of(cohort=["site"]))


def _manifest(fields: list[dict[str, str]] = FIELDS) -> Manifest:
    first = SlideEntry("s", Path("s.svs"), "p", 2)
    return Manifest(tuple(replace(first, row=2 + n, extra=extra) for n, extra in enumerate(fields)), None)


def test_validate_names_columns_values_and_numbers_that_are_wrong(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_cohort, of_number = params_of(cohort=["site", "scaner"]), params_of(number=["age", "weight"])
    (fault,) = CohortCondition.check(of_cohort, _manifest())
    assert "no column 'scaner'" in fault.problem and "age, site" in fault.remedy
    wrong, missing = NumberCondition.check(of_number, _manifest([*FIELDS, {"age": "old"}]))
    assert wrong.row == 6 and wrong.column == "age" and "no column 'weight'" in missing.problem
    (empty,) = CohortCondition.check(params_of(cohort=[]), _manifest())
    assert "it names no column" in empty.problem
    write_csv("field.csv", [{"row": 0, "col": 0, "cohort.site": "A"}, {"row": 0, "col": 1, "cohort.site": "Y"}])
    slide = {"name": "s", "width_px": 64, "height_px": 64, "condition_grid": "field.csv"}
    tabled = params_of(cohort=["site"]).model_dump(mode="json", exclude_computed_fields=True) | {
        "sample_slides": {"slides": [slide]}
    }
    (fault,) = CohortCondition.check(Params.model_validate(tabled), _manifest())
    assert fault.where == "field.csv, column 'cohort.site'" and "no slide has 'site=Y'" in fault.problem
    request = {"name": "r", "tiles": 1, "change": {"cohort": {"site": "Z"}}}
    params = params_of(cohort=["site"]).model_dump(mode="json", exclude_computed_fields=True) | {
        "plan": {"requests": [request]}
    }
    (unknown,) = CohortCondition.check(Params.model_validate(params), _manifest())
    assert "no slide has 'site=Z'" in unknown.problem and "A, B, C" in unknown.remedy


def test_requests_name_columns_of_the_conditions_alone():
    for change in ({"cohort": {"scanner": "x"}}, {"number": {"age": 3.0}}):
        stated = params_of(cohort=["site"]).model_dump(mode="json", exclude_computed_fields=True)
        stated["plan"] = {"requests": [{"name": "r", "tiles": 1, "change": change}]}
        with pytest.raises(ValueError, match=r"are no train_encoders.cohort.columns|'number' is not among"):
            Params.model_validate(stated)
