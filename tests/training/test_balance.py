"""Tiles of each label are drawn equally often, and no tile is left out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from histoloom.training.denoiser import class_balanced


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=60))
def test_each_class_is_drawn_equally_often_and_every_row_is_there(numbers):
    stated = np.array(numbers)
    labels = (stated[:, None] == np.arange(4)).astype(np.float32)
    rows = class_balanced(labels)
    drawn, counts = np.unique(stated[rows], return_counts=True)
    assert set(rows.tolist()) == set(range(len(stated)))
    assert set(drawn) == set(stated) and len(set(counts)) == 1
    for number in set(numbers):
        of_row = np.bincount(rows, minlength=len(stated))[stated == number]
        assert of_row.max() - of_row.min() <= 1
