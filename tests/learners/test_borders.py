"""Borders of masks against cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.learners.borders import border, border_measures


def square(left: int, side: int = 4) -> np.ndarray:
    mask = np.zeros((1, 12, 12), np.uint8)
    mask[0, 4 : 4 + side, left : left + side] = 1
    return mask


def test_the_border_of_a_square_is_its_outer_pixels_and_none_at_the_picture_s_edge():
    assert border(square(4)[0] > 0).sum() == 12
    assert not border(np.ones((5, 5), bool)).any()


def test_the_same_mask_is_perfect():
    f1, distance = border_measures(square(4), square(4))
    assert f1 == [1.0] and distance == [0.0]


def test_a_square_that_is_moved_by_hand():
    # Moved by two: of twelve border pixels the two columns' ends and the rows' overlap lie within one pixel.
    f1, distance = border_measures(square(4), square(6), 0.0)
    assert distance == [pytest.approx(2.0)]
    assert f1 == [pytest.approx(4 / 12)]  # two pixels of the upper and two of the lower side coincide


def test_a_mask_without_a_border():
    empty = np.zeros((1, 12, 12), np.uint8)
    f1, distance = border_measures(square(4), empty)
    assert f1 == [0.0] and distance == [pytest.approx(np.hypot(12, 12))]
    assert np.isnan(border_measures(empty, empty)).all()


@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_it_is_the_same_both_ways_round(first, second):
    one, two = (np.random.default_rng(seed).integers(0, 2, (2, 6, 6)).astype(np.uint8) for seed in (first, second))
    for a, b in zip(border_measures(one, two), border_measures(two, one)):
        assert np.allclose(a, b, equal_nan=True)
