"""Classes that train shows and val or test does not: which, how many tiles elsewhere, and which group may go there."""

from __future__ import annotations

from histoloom.data.held_out_classes import class_counts, lacking, lacking_in_words
from tests.build import tile_rows

ALL = {"train", "val", "test"}


def _rows(**groups: tuple[str, dict[str, int]]):
    """Group to its split and its tiles by label."""
    tiles = [
        (group, split, label) for group, (split, of) in groups.items() for label, n in of.items() for _ in range(n)
    ]
    group, split, label = map(list, zip(*tiles))
    return tile_rows(len(tiles), split_group=group, split=split, label=label)


def _said(rows, classes=("a", "b"), splits=ALL) -> list[str]:
    return [*lacking_in_words(class_counts(rows, classes), splits, "tile", "patient")]


def test_nothing_is_said_where_each_split_shows_each_class():
    rows = _rows(p=("train", {"a": 1, "b": 1}), q=("val", {"a": 1, "b": 2}), r=("test", {"a": 1, "b": 1}))
    assert _said(rows) == []


def test_the_group_with_fewest_tiles_of_the_class_is_named_to_be_moved():
    rows = _rows(
        p=("train", {"a": 2, "b": 3}), q=("train", {"a": 2, "b": 2}), r=("val", {"a": 1, "b": 5}), s=("test", {"a": 1})
    )
    assert _said(rows) == [
        "no test tile of 'b' (5 in train, 5 in val): nothing is measured of it there. "
        "Move a patient of it, such as tile.split.assign: {q: test}."
    ]


def test_of_one_group_nothing_is_moved():
    rows = _rows(p=("train", {"a": 2, "b": 3}), q=("val", {"a": 1}), r=("test", {"a": 1}))
    assert [line.partition(":")[0] for line in _said(rows)] == [
        "no val tile of 'b' (3 in train, 0 in test)", "no test tile of 'b' (3 in train, 0 in val)",
    ]  # fmt: skip
    assert all("add another patient that shows it" in line and "assign" not in line for line in _said(rows))


def test_a_group_that_shows_two_lacking_classes_is_moved_once():
    rows = _rows(p=("train", {"a": 2, "b": 3}), q=("train", {"a": 3, "b": 4}), r=("test", {"c": 1}))
    (line,) = _said(rows, splits={"train", "test"})
    assert "'a' (5 in train, 0 in val), 'b' (7 in train, 0 in val)" in line and "{p: test}" in line


def test_no_group_is_proposed_for_two_splits():
    two = _rows(p=("train", {"a": 2}), q=("train", {"a": 3}), r=("val", {"b": 1}), s=("test", {"b": 1}))
    to_val, to_test = _said(two)
    assert "{p: val}" in to_val and "no patient of 'a' to spare" in to_test and "assign" not in to_test
    three = _rows(**{n: ("train", {"a": k}) for k, n in enumerate("pqt", 1)}, r=("val", {"b": 1}), s=("test", {"b": 1}))
    to_val, to_test = _said(three)
    assert "{p: val}" in to_val and "{q: test}" in to_test


def test_a_split_whose_tiles_were_all_lost_lacks_all_and_one_without_groups_none():
    rows = _rows(p=("train", {"a": 2}))
    assert lacking(class_counts(rows, ["a", "b"]), {"train", "val"}) == {"val": ["a"]}
    assert lacking(class_counts(rows, ["a", "b"]), {"train"}) == {}


def test_a_class_that_train_lacks_is_not_said_here():
    assert _said(_rows(p=("train", {"a": 1}), q=("test", {"a": 1, "b": 1})), splits={"train", "test"}) == []


def test_of_many_classes_the_first_are_listed_and_the_rest_counted():
    classes = [f"c{n}" for n in range(8)]
    rows = _rows(p=("train", dict.fromkeys(classes, 1)), q=("test", {"other": 1}))
    (line,) = _said(rows, classes, {"train", "test"})
    assert "'c4' (1 in train, 0 in val) and 3 more" in line and "'c5'" not in line
