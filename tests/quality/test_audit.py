"""What synthetic tiles tell of the train split: an attack that knows finds it, and one that guesses doesn't."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from histoloom.quality.audit import LEAST, attack, nearness


def groups(count: int, size: int = 10) -> np.ndarray:
    return np.repeat([f"g{n}" for n in range(count)], size)


@given(st.integers(0, 99), st.integers(20, 60), st.integers(20, 60))
def test_its_auc_is_that_of_scikit_learn(seed, first, second):
    rng = np.random.default_rng(seed)
    train, held_out = rng.integers(0, 9, first).astype(float), rng.integers(0, 9, second).astype(float)
    found = attack(train, held_out, (np.arange(first), np.arange(second)), 0)
    truth = np.repeat([1, 0], [first, second])
    assert found["auc"] == pytest.approx(roc_auc_score(truth, np.concatenate([train, held_out])))


def test_an_attack_that_knows_is_sure_and_one_that_guesses_is_not():
    rng, of = np.random.default_rng(0), (groups(12), groups(11))
    guessed = attack(rng.standard_normal(120), rng.standard_normal(110), of, 0)
    assert guessed["over"] == "split groups" and guessed["interval"][0] < 0.5 < guessed["interval"][1]
    known = attack(rng.standard_normal(120) + 5, rng.standard_normal(110), of, 0)
    assert known["interval"][0] > 0.99 and (known["train"], known["held_out"]) == (120, 110)


def test_groups_that_are_alike_within_make_its_interval_wider():
    rng = np.random.default_rng(1)
    of, many = (groups(10), groups(10)), (np.arange(100), np.arange(100))
    train, held_out = (np.repeat(rng.standard_normal(10), 10) for _ in range(2))
    by_group, by_tile = (np.ptp(attack(train, held_out, each, 0)["interval"]) for each in (of, many))
    assert by_group > 2 * by_tile
    few = attack(train[:30], held_out, (of[0][:30], of[1]), 0)
    assert few["over"] == "tiles, of too few split groups"


def test_too_few_tiles_tell_nothing():
    found = attack(np.zeros(LEAST - 1), np.zeros(50), (groups(2), groups(5)), 0)
    assert found == {"train": LEAST - 1, "held_out": 50}


def test_a_sample_that_copies_a_tile_is_nearest_to_it():
    features = np.random.default_rng(0).standard_normal((6, 4))
    near = nearness(features, features[:2] + 1e-3)
    assert near[:2].min() > near[2:].max()
