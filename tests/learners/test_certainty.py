"""How sure a learner is, beside how often it is right: by hand, and after it was calibrated."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.errors import HistoloomError
from histoloom.learners.certainty import Certainty, calibration_of, fit_certainty
from histoloom.learners.kept import Kept, KeptFacts, keep, load_kept
from histoloom.learners.learner import learner_of
from tests.learners.test_learners import drawn, training_of


def test_certainty_by_hand():
    sure = np.array([0.95] * 8 + [0.55] * 2)
    right = np.array([True] * 8 + [True, False])
    found = calibration_of(sure, right)
    assert found["error"] == pytest.approx(0.1)
    assert found["error_of_surest"] == pytest.approx(0.5 / 9)  # eight of 0.95, and one of the two of 0.55
    assert found["calibration_error"] == pytest.approx((8 * 0.05 + 2 * 0.05) / 10)


@given(st.integers(0, 2**31), st.integers(1, 40))
def test_who_is_always_right_errs_nowhere(seed, count):
    sure = np.random.default_rng(seed).random(count)
    found = calibration_of(sure, np.ones(count, bool))
    assert found["error"] == found["error_of_surest"] == 0
    assert found["calibration_error"] <= 1


def test_who_says_too_much_is_calibrated_on_other_pixels():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 40_000)
    right = rng.random(40_000) < sure**3
    learnt = fit_certainty(sure[::2], right[::2])
    before, after = (calibration_of(said[1::2], right[1::2]) for said in (sure, learnt(sure)))
    assert before["calibration_error"] > 0.15 and after["calibration_error"] < 0.02
    assert after["error"] == before["error"]


@given(st.integers(0, 2**31), st.integers(1, 60))
def test_the_surer_stays_the_surer(seed, count):
    rng = np.random.default_rng(seed)
    learnt = fit_certainty(rng.random(count), rng.random(count) < 0.7)
    said = np.sort(rng.random(50))
    assert (np.diff(learnt(said)) >= 0).all() and learnt(said).min() >= 0 and learnt(said).max() <= 1


def test_of_no_pixels_nothing_is_learnt():
    assert fit_certainty(np.empty(0), np.empty(0, bool)) is None


def test_it_is_kept_with_the_learner(tmp_path):
    images, masks = drawn(8)
    learner = learner_of("unet", "mask").fit(images, masks, training_of("unet", "mask", tmp_path / "work", steps=2))
    facts = KeptFacts("unet", ("red", "blue"), 1.0, 16, certainty=Certainty((0.3, 1.0), (0.2, 0.9)))
    for number, each in enumerate((facts, replace(facts, certainty=None))):
        (folder := tmp_path / str(number)).mkdir()
        keep(Kept(learner, each), folder)
        assert load_kept(folder).facts == each
    assert facts.right(np.array([1.0, 0.3])).tolist() == [0.9, 0.2]
    (folder / "learner.json").write_text(
        json.dumps({**json.loads((folder / "learner.json").read_text()), "certainty": 3})
    )
    with pytest.raises(HistoloomError, match="can't be loaded"):
        load_kept(folder)
