"""Which tiles a learner's batches hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from histoloom.learners.learner import Training
from histoloom.training.run import TrainingRun


def _drawn(real: int, extra: int, share: float, steps: int, size: int, **more) -> np.ndarray:
    run = TrainingRun("learner", steps, 1e-3, 7, Path("unused"), steps)
    kinds = np.concatenate([np.zeros(real, bool), np.ones(extra, bool)])
    training = Training("unet", "mask", ("red",), run, size, extra=kinds, extra_share=share, **more)
    return np.stack([training.batch(step, real + extra).numpy() for step in range(steps)])


@given(
    real=st.integers(1, 40),
    extra=st.integers(1, 40),
    share=st.floats(0.05, 0.95),
    steps=st.integers(1, 30),
    size=st.integers(1, 9),
)
def test_synthetic_tiles_fill_their_share_however_few_they_are_and_each_kind_comes_in_turn(
    real, extra, share, steps, size
):
    drawn = _drawn(real, extra, share, steps, size)
    assert drawn.shape == (steps, size)
    synthetic = drawn[drawn >= real]
    assert len(synthetic) == int(steps * size * share)
    for kind, count in ((drawn[drawn < real], real), (synthetic - real, extra)):
        times = np.bincount(kind, minlength=count)
        assert len(times) == count and times.max() - times.min() <= 1


def test_tiles_of_one_kind_alone_are_drawn_as_if_no_kind_were_told():
    alone = _drawn(11, 0, 0.3, 6, 4)
    assert (np.sort(alone.ravel()[:11]) == np.arange(11)).all()
    in_turn = _drawn(5, 6, 0.3, 6, 4, first=5)
    assert (in_turn[:3] < 5).all() and (in_turn[3:] >= 5).all()
