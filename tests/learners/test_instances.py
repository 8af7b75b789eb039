"""Measures of objects against cases by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.learners.instances import instance_measures


def row(*numbers: int) -> np.ndarray:
    return np.array([numbers])


def test_the_same_objects_under_other_numbers_are_perfect():
    assert instance_measures(row(0, 7, 7, 0, 9), row(0, 1, 1, 0, 2)) == (1, 1, 1, 1)


def test_two_objects_found_as_one():
    # The one of four pixels overlaps the first of three by 3/4, and the second of one by 1/4.
    found = instance_measures(row(1, 1, 1, 1), row(1, 1, 1, 2))
    assert found.aji == pytest.approx((3 + 1) / (4 + 4))  # both take the same object as their best
    assert found.dq == pytest.approx(2 * 1 / 3) and found.sq == pytest.approx(3 / 4)
    assert found.pq == pytest.approx(2 / 3 * 3 / 4)


def test_an_object_that_is_not_there_counts_by_its_area():
    found = instance_measures(row(1, 1, 0, 2), row(1, 1, 0, 0))
    assert found.aji == pytest.approx(2 / 3) and found.dq == pytest.approx(2 / 3) and found.sq == 1


def test_nothing_found_and_nothing_there():
    assert np.isnan(instance_measures(row(0, 0), row(0, 0))).all()
    assert instance_measures(row(0, 0), row(1, 0)) == instance_measures(row(1, 0), row(0, 0)) == (0, 0, 0, 0)


@given(st.integers(0, 2**31))
def test_all_lie_between_nought_and_one_and_pq_is_symmetric(seed):
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, 4, (5, 5)) for _ in range(2))
    one, two = instance_measures(first, second), instance_measures(second, first)
    assert all(0 <= value <= 1 for value in one) and one.pq == pytest.approx(two.pq)
