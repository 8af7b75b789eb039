"""Draws of groups."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.quality.intervals import group_draws


@given(seed=st.integers(0, 99), groups=st.integers(1, 14), rows=st.integers(2, 60))
@settings(deadline=None, max_examples=30)
def test_every_draw_holds_every_label_and_whole_groups(seed, groups, rows):
    rng = np.random.default_rng(seed)
    names, labels = rng.integers(0, groups, rows).astype(str), rng.choice(["a", "b"], rows)
    for draw in group_draws(names, labels, 3, rng):
        assert set(labels[draw]) == set(labels)
        if len(set(names)) >= 10 and set(labels[draw[: -rows or None]]) == set(labels):
            assert all(np.isin(np.flatnonzero(names == name), draw).all() for name in set(names[draw]))
