"""A network from picture to picture learns what changes."""

from __future__ import annotations

import numpy as np

from histoloom.learners.regression import fit_regression
from histoloom.training.run import TrainingRun


def test_it_learns_to_brighten(tmp_path):
    after = np.random.default_rng(0).integers(60, 200, (16, 16, 16, 3), dtype=np.uint8)
    before = after - 40
    run = TrainingRun("regression", 60, 3e-3, 0, tmp_path / "checkpoints", 100)
    restored = fit_regression(before, after, run, 8)(before)
    error, untouched = (np.abs(x.astype(float) - after).mean() for x in (restored, before))
    assert restored.shape == after.shape and error < untouched / 4
