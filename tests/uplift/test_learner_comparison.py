"""Two learners beside each other: the same learner differs by nothing, what was predicted is taken up again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from histoloom.config.learners import PlainLearner
from histoloom.uplift.learner_comparison import Fold, LearnerComparison, MaskedTiles
from tests.learners.test_learners import drawn, training_of

UNET = PlainLearner(name="unet")


def comparison(work: Path, steps: int = 3) -> LearnerComparison:
    images, masks = drawn(24)
    parts = [MaskedTiles(images[p], masks[p], np.array(list("aabbccdd"))) for p in np.split(np.arange(24), 3)]
    folds = [Fold(parts[0], {"own": parts[1]}), Fold(parts[1], {"own": parts[2]})]
    return LearnerComparison(("red", "blue"), folds, work, steps, 4, seeds=2)


def test_a_learner_differs_from_itself_by_nothing(tmp_path):
    found = comparison(tmp_path)
    assert found.task("own").folds.tolist() == [0] * 8 + [1] * 8
    same = found.difference(UNET, UNET, "own")
    assert same["difference"] == 0 and same["interval"] == [0, 0]
    assert 0 <= found.dice(UNET, "own") <= 1 and len(found.masks(UNET, "own")) == 2
    assert found.calibration(UNET, "own")["error"] == pytest.approx(
        np.mean([(masks != found.truth("own")).mean() for masks in found.masks(UNET, "own")])
    )


def test_what_was_predicted_is_taken_up_again_and_other_steps_are_another_trial(tmp_path):
    first = comparison(tmp_path).masks(UNET, "own")
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert all((a == b).all() for a, b in zip(first, comparison(tmp_path).masks(UNET, "own")))
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == made
    comparison(tmp_path, steps=4).masks(UNET, "own")
    assert len([*tmp_path.glob("unet_*")]) == 8


def test_tiles_in_turn_are_each_seen_in_their_half_alone(tmp_path):
    training = training_of("unet", "mask", tmp_path, steps=20, first=6)
    halves = [{int(n) for step in steps for n in training.batch(step, 16)} for steps in (range(10), range(10, 20))]
    assert halves == [set(range(6)), set(range(6, 16))]
    together = training_of("unet", "mask", tmp_path, steps=20)
    assert {int(n) for n in together.batch(0, 16)} == set(range(16))
