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
