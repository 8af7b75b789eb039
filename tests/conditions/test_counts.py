"""Islands of a mask, counted and told as a vector."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from histoloom.conditions.counts import CountsCondition, islands
from histoloom.data.store import UNKNOWN


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 2)), max_size=12))
def test_islands_apart_are_counted_by_class(places):
    """One of 2 x 2 px in each cell of a grid of 4 px: they never touch."""
    mask, of = np.zeros((24, 24), np.uint8), {}
    for row, column, number in places:
        mask[4 * row : 4 * row + 2, 4 * column : 4 * column + 2] = number
        of[row, column] = number
    assert islands(mask, 2) == [[*of.values()].count(1), [*of.values()].count(2)]


def test_a_vector_tells_how_many_there_are_in_1000_px_and_nothing_of_an_unknown_mask():
    masks = np.zeros((3, 40, 50), np.uint8)
    masks[0, ::8, 1] = 1
    masks[1] = UNKNOWN
    condition = CountsCondition(("nucleus", "clear"))
    vector = condition.arrays(pd.DataFrame(index=range(3)), lambda name: {"mask": masks}[name])["counts"]
    assert condition.channels == ("nucleus", "clear", "given") and vector.dtype == np.float32
    assert np.allclose(vector, [[np.log1p(5 / 2), 0, 1], [0, 0, 0], [0, 0, 1]])
    assert condition.arrays(pd.DataFrame(index=[]), lambda _: masks[:0])["counts"].shape == (0, 3)
