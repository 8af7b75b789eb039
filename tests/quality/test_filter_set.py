"""Filters together: verdicts, what is kept of them, and classes of which next to nothing passes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from histoloom.errors import HistoloomError
from histoloom.quality.filters.base import Tiles
from histoloom.quality.filters.filter_set import FILTERS, load_filter_set
from histoloom.studies.filter import _say, _yield, poor
from tests.build import synthetic_rows
from tests.quality.filtered_tiles import USE

pytestmark = pytest.mark.long


def test_filters_that_were_kept_decide_the_same(filter_set, held_out, tmp_path):
    filter_set.save(tmp_path)
    again = load_filter_set(tmp_path)
    assert [f.name for f in again.filters] == list(USE)
    pd.testing.assert_frame_equal(again(held_out), filter_set(held_out), rtol=1e-4, atol=1e-4)


def test_verdicts_say_why(filter_set, held_out):
    verdicts = filter_set(held_out)
    assert verdicts["accepted"].eq(verdicts["reject_reasons"].str.len() == 0).all() and not verdicts["accepted"].all()
    assert set(verdicts["reject_reasons"].explode().dropna()) <= {FILTERS[name].reason for name in USE}


def test_an_empty_part_has_verdicts_too(filter_set, held_out):
    none = Tiles(held_out.images[:0], held_out.rows.head(0), lambda _: held_out.read("mask")[:0], held_out.extractor)
    assert len(filter_set(none)) == 0


@pytest.mark.parametrize(("synthetic", "accepted", "refused"), [(100, 1, True), (100, 2, False), (9, 0, False)])
def test_a_class_of_which_too_little_passes_is_refused(synthetic, accepted, refused):
    classes = {"rare": {"synthetic": synthetic, "accepted": accepted}}
    assert set(poor(classes, 0.02)) == ({"rare"} if refused else set())


def test_refused_classes_are_said_and_nothing_left_is_an_error(capsys):
    refused = {"rare": {"synthetic": 100, "accepted": 1, "rejected_for": {"low tissue quality": 99}}}
    _say(refused, 0.02, left=5)
    said = " ".join(capsys.readouterr().err.split())
    assert "not good enough" in said and "'rare': 1 of 100 (low tissue quality: 99)" in said
    with pytest.raises(HistoloomError, match=r"'rare': 1 of 100 \(low tissue quality: 99\).*min_yield.*no tile of any"):
        _say(refused, 0.02, left=0)
    _say({}, 0.02, left=0)
    assert not capsys.readouterr().err


def test_a_tile_counts_for_each_reason_that_rejects_it():
    reasons = [[], ["low tissue quality", "near-copy of a train tile"], ["low tissue quality"]]
    rows = synthetic_rows(3).assign(accepted=[True, False, False], reject_reasons=reasons)
    found = _yield(rows.assign(quality_score=0.0, near_copy_score=0.0, label_score=0.0))
    rejected_for = {"low tissue quality": 2, "does not show its label": 0, "near-copy of a train tile": 1}
    medians = {"quality": 0.0, "label": 0.0, "near_copy": 0.0}
    assert found == {"synthetic": 3, "accepted": 1, "rejected_for": rejected_for, "not_told": 0, "medians": medians}
    assert _yield(rows.assign(realism_score=[1.0, np.nan, np.nan]))["not_told"] == 2
