"""Retrieval finds what is alike, and says of it what its neighbours are."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from histoloom.uplift.retrieval import most_alike, retrieved

_AXES = np.eye(3, dtype=np.float32)


def _around(which: list[int], seed: int) -> np.ndarray:
    return _AXES[which] + 0.05 * np.random.default_rng(seed).normal(size=(len(which), 3)).astype(np.float32)


def test_tiles_get_the_class_of_their_neighbours_and_the_nearest_come_first():
    labelled, truth = _around([0] * 20 + [1] * 3, 0), np.array([0] * 20 + [1] * 3)
    pool = np.concatenate([_around([1, 0, 1, 0], 1), _AXES[[1]]])
    places, told = retrieved(labelled, truth, pool, {0: 1, 1: 2})
    assert told.tolist() == [0, 1, 1] and places[0] in (1, 3) and set(places[1:]) <= {0, 2, 4}
    near = pool[[0, 2, 4]] / np.linalg.norm(pool[[0, 2, 4]], axis=1, keepdims=True)
    best = (near @ (labelled[20:] / np.linalg.norm(labelled[20:], axis=1, keepdims=True)).T).max(1)
    assert places[1] == [0, 2, 4][int(best.argmax())]


@given(pool=st.integers(0, 30), wanted=st.integers(0, 40), seed=st.integers(0, 9))
def test_none_is_taken_twice_and_no_more_than_wanted(pool, wanted, seed):
    rng = np.random.default_rng(seed)
    labelled, truth = rng.normal(size=(12, 4)).astype(np.float32), rng.integers(0, 2, 12)
    others = rng.normal(size=(pool, 4)).astype(np.float32)
    before = others.copy()
    places, told = retrieved(labelled, truth, others, {0: wanted, 1: 2})
    assert len({*places}) == len(places) == len(told) <= min(pool, wanted + 2)
    assert all((told == number).sum() <= count for number, count in {0: wanted, 1: 2}.items())
    assert len({*most_alike(labelled, others, wanted)}) == min(pool, wanted)
    assert np.array_equal(others, before)
