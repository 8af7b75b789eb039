"""Too few split groups: the unit, how many there are, how many are needed, and a remedy that mends it."""

from __future__ import annotations

import pytest

from histoloom.config import Split
from histoloom.data.few_groups import empty_splits, few_groups, more_groups


def test_the_unit_and_both_numbers_are_said():
    assert few_groups({"s0", "s1"}, Split(group="slide")) == (
        "the split group is the slide (tile.split.group), and there are 2: 's0', 's1'. "
        "train, val and test need one each, 3 in all"
    )
    without_test = Split(group="slide", fractions={"train": 0.8, "val": 0.2, "test": 0})
    assert few_groups({"s0", "s1"}, without_test) is None
    assert "there is 1: 's0'. train and val need one each, 2 in all" in few_groups({"s0"}, without_test)


def test_splits_that_nobody_asked_for_are_not_empty():
    assert empty_splits({"a": "train", "b": "val"}, Split()) == ["test"]
    assert empty_splits({"a": "train"}, Split(fractions={"train": 1})) == []


@pytest.mark.parametrize(
    "group, slides, patients, of_sets, named, never",
    [
        ("patient", 2, 1, False, "tile.split.group: region", "group: slide"),
        ("patient", 3, 1, False, "tile.split.group: slide (3 slides) or tile.split.group: region", "add slides"),
        ("patient", 3, 1, True, "tile.split.group: slide (3 slides)", "region"),
        ("patient", 2, 1, True, "add patients", "tile.split.group"),
        ("patient", 2, 2, False, "add patients", "tile.split.group"),
        ("slide", 2, 1, False, "tile.split.group: region", "add patients"),
        ("slide", 2, 1, True, "add slides", "region"),
        ("region", 1, 1, False, "tile.split.region.rows", "tile.split.group"),
    ],
)
def test_the_remedy_is_one_that_the_study_accepts(group, slides, patients, of_sets, named, never):
    of = [f"s{n}" for n in range(slides)], [f"p{n}" for n in range(patients)]
    said = more_groups(*of, Split(group=group), of_sets=of_sets)
    assert named in said and never not in said
