"""The segmenter learns what it is shown, and Dice is what its formula says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.learners.segmenter import dice, load_segmenter, train_segmenter
from histoloom.training.loop import TrainingRun


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


def test_it_learns_and_is_kept_whole(tmp_path):
    rng = np.random.default_rng(0)
    masks = np.zeros((16, 16, 16), np.uint8)
    for mask in masks:
        y, x = rng.integers(0, 10, 2)
        mask[y : y + 6, x : x + 6] = 1 + rng.integers(0, 2)
    colours = np.array([[220, 220, 220], [200, 60, 60], [60, 60, 200]])
    images = np.clip(colours[masks] + rng.normal(0, 8, (*masks.shape, 3)), 0, 255).astype(np.uint8)
    run = TrainingRun("segmenter", 60, 5e-3, 0, tmp_path / "checkpoints", 60, warmup_steps=5)
    model = train_segmenter(images, masks, 2, run)
    assert dice(model.eval().segment(images), masks, 2).mean() > 0.9
    model.save(tmp_path)
    assert (load_segmenter(tmp_path).segment(images) == model.segment(images)).all()
    assert model.segment(images[:0]).shape == (0, 16, 16)
