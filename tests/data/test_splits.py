"""Splits are by group, stable, and regions keep their gap."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from histoloom.config import Region
from histoloom.data.pixel_box import PixelBox
from histoloom.data.schema import SPLITS
from histoloom.data.splits import assign_splits, inside_region, region_of

names = st.text("abcdefgh0123", min_size=1, max_size=6)
groups = st.lists(names, min_size=1, max_size=60, unique=True)
seeds = st.integers(0, 1000)


@st.composite
def fractions(draw) -> dict[str, float]:
    parts = draw(st.tuples(st.integers(1, 20), st.integers(0, 10), st.integers(0, 10)))
    return {split: part / sum(parts) for split, part in zip(SPLITS, parts)}


def _sides(splits: dict[str, str], cut: int) -> dict[str, bool]:
    """Whether each group lies before the cut, of the two between the three splits."""
    return {group: SPLITS.index(split) <= cut for group, split in splits.items()}


@given(groups, fractions(), seeds)
def test_every_group_has_one_split_with_a_fraction(groups, fractions, seed):
    splits = assign_splits(groups, fractions, seed)
    assert set(splits) == set(groups)
    assert all(fractions[split] > 0 for split in splits.values())


@given(groups, fractions(), seeds, st.randoms())
def test_neither_order_nor_repeats_of_groups_count(groups, fractions, seed, random):
    again = groups + groups[:3]
    random.shuffle(again)
    assert assign_splits(again, fractions, seed) == assign_splits(groups, fractions, seed)


@given(groups, names, fractions(), seeds)
def test_one_group_more_moves_at_most_one_over_each_cut(groups, new, fractions, seed):
    assume(new not in groups)
    before = assign_splits(groups, fractions, seed)
    after = assign_splits([*groups, new], fractions, seed)
    for cut in (0, 1):
        was, now = _sides(before, cut), _sides(after, cut)
        assert sum(was[group] != now[group] for group in groups) <= 1


@given(groups, fractions(), seeds)
def test_fractions_are_honoured_within_one_group(groups, fractions, seed):
    assume(all(f == 0 or f * len(groups) >= 1 for f in fractions.values()))
    found = list(assign_splits(groups, fractions, seed).values())
    for split, fraction in fractions.items():
        assert abs(found.count(split) - fraction * len(groups)) <= 1 + 1e-9


@given(groups, fractions(), seeds, st.data())
def test_stated_splits_are_kept_and_no_split_stays_empty(groups, fractions, seed, data):
    stated = data.draw(st.dictionaries(st.sampled_from(groups), st.sampled_from(SPLITS), max_size=5))
    splits = assign_splits(groups, fractions, seed, stated)
    assert set(splits) == set(groups)
    assert stated.items() <= splits.items()
    lacking = {s for s, f in fractions.items() if f > 0} - set(stated.values())
    if len(groups) - len(stated) >= len(lacking):
        assert lacking <= set(splits.values())


@pytest.mark.parametrize("count, expected", [(1, {"train"}), (3, {"train", "val", "test"})])
def test_few_groups_go_to_train_first(count, expected):
    splits = assign_splits([f"p{i}" for i in range(count)], {"train": 0.98, "val": 0.01, "test": 0.01}, 0)
    assert set(splits.values()) == expected


side = st.integers(1, 60)
place = st.tuples(st.floats(0, 500), st.floats(0, 400))


@given(st.integers(0, 400), side, st.integers(2, 5), st.integers(1, 5), st.floats(0, 50), st.booleans())
def test_tiles_accepted_in_different_regions_keep_the_gap(across, side, many, few, gap, upright):
    """All tiles along one line over the slide; `many` regions lie along it."""

    def ask(function, x: int, *more):
        place, size, regions = (x, across), (560, 460), (few, many)
        if upright:
            place, size, regions = place[::-1], size[::-1], regions[::-1]
        return function(PixelBox(*place, side, side), size, Region(rows=regions[0], cols=regions[1]), *more)

    accepted = [x for x in range(560 - side) if ask(inside_region, x, gap)]
    region = [ask(lambda tile, *rest: region_of(tile.left + side / 2, tile.top + side / 2, *rest), x) for x in accepted]
    for x, other, here, there in zip(accepted, accepted[1:], region, region[1:]):
        assert here == there or other - x - side >= gap - 1e-6


@given(place, side, st.floats(0, 50))
def test_one_region_takes_every_tile(corner, side, gap):
    assert inside_region(PixelBox(*corner, side, side), (560, 460), Region(rows=1, cols=1), gap)
