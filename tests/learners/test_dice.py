"""Dice is what its formula says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.learners.dice import dice


def test_dice_by_hand():
    found = np.array([[[1, 1], [0, 2]], [[0, 0], [0, 0]], [[1, 0], [0, 0]]])
    stated = np.array([[[1, 0], [0, 2]], [[0, 0], [0, 0]], [[0, 0], [0, 2]]])
    assert dice(found, stated, 2) == pytest.approx([(2 / 3 + 1) / 2, 1, 0])


@given(seed=st.integers(0, 99), classes=st.integers(1, 4))
@settings(max_examples=30)
def test_dice_is_symmetric_and_one_of_a_mask_with_itself(seed, classes):
    first, second = np.random.default_rng(seed).integers(0, classes + 1, (2, 3, 6, 6))
    assert dice(first, second, classes) == pytest.approx(dice(second, first, classes))
    assert dice(first, first, classes) == pytest.approx(np.ones(3)) and (dice(first, second, classes) <= 1).all()


@given(seed=st.integers(0, 99), agreed=st.sampled_from([0.02, 0.05, 0.2]))
@settings(max_examples=40)
def test_what_is_found_in_excess_never_raises_it(seed, agreed):
    rng = np.random.default_rng(seed)
    stated, found = rng.integers(0, 3, (2, 1, 8, 8))
    more = np.where(
        (found == 0) & (stated == 0) & (rng.random(found.shape) < 0.3), rng.integers(1, 6, found.shape), found
    )
    assert dice(more, stated, 5, agreed) <= dice(found, stated, 5, agreed) + 1e-12


def test_few_known_pixels_that_are_missed_count_as_many_do():
    stated = np.full((1, 20, 20), 255)
    stated[0, :2, :5] = 1
    assert dice(np.zeros_like(stated), stated, 1, 0.05) < 0.1


@given(side=st.integers(8, 40), across=st.integers(1, 8))
@settings(max_examples=20)
def test_a_sliver_that_is_missed_counts_less_than_half_a_tile(side, across):
    sliver, half = np.zeros((2, 1, 40, 40), int)
    sliver[0, :1, :across], half[0, :side, :20] = 1, 1
    nothing = np.zeros_like(half)
    assert dice(nothing, sliver, 1) == dice(nothing, half, 1) == 0
    assert dice(nothing, sliver, 1, 0.05) > 0.9
    assert dice(nothing, half, 1, 0.05) <= 80 / (80 + 8 * 20) + 1e-9
    assert dice(half, half, 1, 0.05) == dice(nothing, nothing, 1, 0.05) == 1
