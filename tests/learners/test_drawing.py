"""Labelled tiles are drawn alike often of every class, and extra ones by the same fraction in each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.learners.networks import _alike


@given(seed=st.integers(0, 99), share=st.floats(0.05, 0.9), first=st.integers(0, 20))
@settings(max_examples=60)
def test_no_class_is_told_by_how_many_of_its_tiles_are_extra(seed, share, first):
    rng = np.random.default_rng(seed)
    truth, extra = rng.integers(0, 3, 60), rng.random(60) < 0.4
    turn = range(first, 60)
    chance = _alike(truth, turn, 3, extra, share).numpy()
    own = np.isin(np.arange(60), turn)
    assert (chance[~own] == 0).all()
    for number in np.unique(truth[own]):
        of_class = own & (truth == number)
        assert chance[of_class].sum() == pytest.approx(1)
        both = extra[of_class].any() and not extra[of_class].all()
        if both:
            assert chance[of_class & extra].sum() == pytest.approx(share)
        for kind in (extra, ~extra):
            alike = chance[of_class & kind]
            assert alike.size == 0 or np.ptp(alike) < 1e-12
