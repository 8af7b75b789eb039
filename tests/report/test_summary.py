"""What a reader who reads nothing else is told."""

from __future__ import annotations

import pytest

from histoloom.quality.filters.near_copy import CopyFilter
from histoloom.quality.intervals import near_copy_excess
from histoloom.report.summary import (
    NEAR_COPY,
    in_short,
    near_copies,
    severity,
    told_apart_table,
    uplift_table,
)

TILE = {"tiles": 1200, "patients": 3, "tiles_by_split": {"train": {"a": 900}, "val": {}, "test": {"a": 200, "b": 100}}}
AUGMENT = {
    "synthetic": 50,
    "accepted": 20,
    "rejected_for": {"low tissue quality": 5, "near-copy": 0, "wrong label": 25},
}
UNFILTERED = {
    "n": {"synthetic": 20},
    "kid": {"mean": 1.0},
    "kid_floor": {"mean": 0.1},
    "kid_interval": {"value": 1.1, "interval": [0.9, 1.3], "over": "split groups"},
}
ARM = {"arm": "real", "ratio": 1.0, "seeds": 2, "trained_on": {"real": 9, "synthetic": 0}, "dice": 0.5}


def test_in_short():
    measured = {
        "tile": TILE,
        "filter": {"augment": AUGMENT},
        "evaluate": {"accepted": UNFILTERED | {"kid": {"mean": 0.2}}, "unfiltered": UNFILTERED},
    }
    said = in_short(measured)
    assert said[0].startswith("1,200 real tiles of 3 patient(s): 900 train, 300 test.")
    assert said[1] == (
        "50 synthetic tiles were made to augment, and 40% passed the filters. "
        "Rejected for: wrong label (25), low tissue quality (5)."
    )
    assert (
        said[2]
        == "KID of 20 unfiltered samples to held-out real tiles: 1.100 (0.900 to 1.300); real train tiles have 0.100."
    )
    assert len(said) == 3


def test_how_easily_they_are_told_apart_stands_first():
    told = {"auc": 0.912, "interval": [0.88, 0.94], "over": "split groups", "n": {"real": 900, "other": 1200}}
    few = {"n": {"real": 900, "other": 49}}
    overall = {"samples": told, "floor": told | {"auc": 0.7, "interval": [0.6, 0.8]}}
    evaluated = {"realism": {"overall": overall, "by_class": {"rare": {"samples": few, "floor": few}}}}
    said = in_short({"tile": TILE, "filter": {}, "evaluate": evaluated, "uplift": {}})
    assert said[0].startswith(
        "Told apart from real tiles with an AUC of 0.91 (0.88 to 0.94, by split groups), unfiltered"
    )
    assert "Real train tiles in their place: 0.70, which may be high because these are other regions" in said[0]
    assert told_apart_table(evaluated) == [
        ("all", "1,200", "900", "0.91 (0.88 to 0.94)", "0.70 (0.60 to 0.80)"),
        ("rare", "49", "900", "cannot tell", "cannot tell"),
    ]
    evaluated["realism"]["overall"]["samples"] = few
    assert (
        "can't be told: 49 samples and 900 real tiles are too few"
        in in_short({"tile": TILE, "filter": {}, "evaluate": evaluated, "uplift": {}})[0]
    )


def test_refused_classes_and_those_that_could_not_be_told_are_named():
    few = {"synthetic": 30, "accepted": 30, "not_told": 30}
    filtered = {
        "augment": AUGMENT | {"by_class": {"rare": few}},
        "refused": {"keratin": {"synthetic": 1000, "accepted": 12}},
    }
    said = in_short({"tile": TILE, "filter": filtered, "evaluate": {}, "uplift": {}})
    assert said[2] == (
        "The generator is not good enough for keratin: 12 of 1,000 tiles passed the filters, and none is accepted."
    )
    assert said[3] == "Too few tiles to tell how real they are: rare (30)."


def test_classes_that_no_train_tile_shows_are_said():
    plan = {"classes": {"rare": {"reason": "x"}, "unmasked": {"reason": "x"}, "a": {"reason": ""}}}
    tile = TILE | {"classes_without_train_tiles": ["rare"]}
    said = in_short({"tile": tile, "plan": plan, "filter": {}, "evaluate": {}, "uplift": {}})
    assert said[1] == "No train tile shows rare: nothing was learned or made of it."
    assert said[2] == "Nothing was made of unmasked: no train tile has conditions for it."


def test_classes_that_a_held_out_split_lacks_are_said():
    tile = TILE | {"classes_without_held_out_tiles": {"test": ["rare", "b"]}}
    said = in_short({"tile": tile, "filter": {}, "evaluate": {}})
    assert said[1].startswith("No test tile shows rare, b, which train shows: nothing is measured of it on test.")


def test_what_was_not_done_is_said_or_left_out():
    said = in_short({"tile": TILE, "filter": {}, "evaluate": {"accepted": {}, "unfiltered": {}}})
    assert len(said) == 1
    assert uplift_table({"left_out": "x"}) == {"columns": [], "rows": []}


def test_what_filters_reject_of_real_tiles():
    found = {"false_rejection_stated": 0.01, "false_rejection_found": 0.005}
    filters = {
        "held_out_tiles": 9,
        "quality": found | {"false_rejection_of_test": 0.0474},
        "review": found,
        "other": {},
    }
    assert severity(filters) == [("quality", "1.0%", "0.5%", "4.7%"), ("review", "1.0%", "0.5%", "")]


def test_the_table_has_the_measures_that_there_are():
    table = uplift_table({"arms": [ARM | {"dice_std_of_seeds": 0.02, "dice_of_class": {"nucleus": 0.4}}]})
    assert table["columns"][-2:] == ["Dice by patient (sd of seeds)", "Dice of nucleus"]
    assert table["rows"][0][-2:] == ["0.500 (0.020)", "0.40"]


@pytest.mark.parametrize(("counts", "expected"), [
    ((56, 70, 48, 80), (0.2, 0.0524, 0.3339)), ((5, 56, 0, 29), (0.0893, -0.0381, 0.1926)),
])  # fmt: skip
def test_an_excess_has_newcombe_s_interval(counts, expected):
    """The figures of his tables (1998, method 10)."""
    flagged, samples, alike, real = counts
    found = near_copy_excess(flagged, samples, alike / real, real)
    assert (found["excess"], *found["interval"]) == pytest.approx(expected, abs=1e-4)


def test_copies_are_judged_beside_what_real_tiles_of_test_show():
    assert CopyFilter.reason == NEAR_COPY
    unfiltered = {"synthetic": 200, "rejected_for": {NEAR_COPY: 4}}
    (said,) = near_copies({"false_rejection_of_test": 0.005, "test_tiles": 400}, unfiltered)
    assert (
        "2.00% of 200 unfiltered samples" in said
        and "0.50% of 400 real test tiles: +1.50 points (-0.29 to +4.55" in said
    )
    assert near_copies({"false_rejection_of_test": None, "test_tiles": 0}, unfiltered) == near_copies({}, None) == []
