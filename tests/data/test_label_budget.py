"""The label budget: a larger fraction holds what a smaller one does."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from histoloom.data.label_budget import drawn_units, is_hidden
from histoloom.data.pixel_box import PixelBox

fractions = st.floats(0.01, 1)
names = st.lists(st.text("abc123", min_size=1, max_size=4), min_size=1, max_size=20)


@given(names, fractions, fractions, st.integers(0, 99))
def test_units_are_drawn_as_the_fraction_says_and_stay_drawn(units, one, other, seed):
    small, large = sorted((one, other))
    drawn = drawn_units(units, small, seed)
    assert drawn <= drawn_units(units, large, seed)
    assert 0 <= len(drawn) - small * len(set(units)) < 1 + 1e-6


@given(st.integers(0, 99), st.integers(0, 99), st.integers(1, 30), fractions, fractions, st.integers(0, 99))
def test_a_tile_is_visible_where_all_squares_that_it_touches_are(x, y, side, one, other, seed):
    small, large = sorted((one, other))
    tile = PixelBox(x, y, side, side)
    if is_hidden(tile, 10, "s/train", large, seed):
        assert is_hidden(tile, 10, "s/train", small, seed)
    touched = [PixelBox(left, top, 1, 1) for left in range(x, x + side) for top in range(y, y + side)]
    assert is_hidden(tile, 10, "s/train", small, seed) == any(
        is_hidden(pixel, 10, "s/train", small, seed) for pixel in touched
    )
