"""Metrics against closed forms, and what each says of a generator that is broken on purpose."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.quality.kid import kid, kid_difference, kid_interval
from histoloom.quality.metrics import (
    FeatureSets,
    authenticity,
    clip_score,
    compare,
    density_coverage,
    fd,
    inception_score,
    precision_recall,
)

D = 8
GROUPS = np.arange(300) % 15


def _normal(n: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> np.ndarray:
    return (mean + scale * np.random.default_rng(seed).standard_normal((n, D))).astype(np.float32)


def test_fd_of_normals_is_its_closed_form():
    found = fd(_normal(4000, 1), _normal(4000, 2, mean=1.0, scale=2.0), 0)
    assert found["value"] == pytest.approx(D * 1.0 + D * (2 - 1) ** 2, rel=0.05) and found["n"] == 4000


def test_kid_is_the_unbiased_mmd_of_the_cubic_kernel():
    first, second = _normal(60, 1), _normal(60, 2, mean=0.5)
    found = kid(first, second, 2000, 0)

    def kernel(a, b):
        return (a @ b.T / D + 1) ** 3

    own = [(k.sum() - np.trace(k)) / (60 * 59) for k in (kernel(first, first), kernel(second, second))]
    assert found["mean"] == pytest.approx(
        sum(own) - 2 * kernel(first, second).mean(), abs=4 * found["std"] / 2000**0.5 + 0.02
    )
    assert found["subset_size"] == 30


def test_kid_s_interval_is_about_the_mmd_and_holds_nought_of_one_distribution():
    same = [kid_interval(_normal(200, 2 * n), _normal(300, 2 * n + 1), GROUPS, n) for n in range(30)]
    assert sum(low <= 0 <= high for low, high in (f["interval"] for f in same)) >= 27
    assert same[0]["over"] == "split groups"
    first, second = _normal(400, 1), _normal(300, 2, mean=0.5)
    found = kid_interval(first, second, np.zeros(300), 0)
    assert found["value"] == pytest.approx(kid(first, second, 500, 0)["mean"], rel=0.1) and "too few" in found["over"]
    assert 0 < found["interval"][0] < found["value"] < found["interval"][1]
    assert kid_interval(first[:39], second, GROUPS, 0) == {}


def test_a_difference_of_kid_is_found_and_not_where_there_is_none():
    real = _normal(300, 1)
    found = []
    for n in range(20):
        near, alike, far = _normal(200, 10 + n), _normal(200, 50 + n), _normal(200, 90 + n, mean=0.5)
        low, high = kid_difference(near, alike, real, n)
        found.append(low <= 0 <= high)
        low, high = kid_difference(far, near, real, n)
        assert low > 0
        value = kid_interval(far, real, np.zeros(300), n)["value"] - kid_interval(near, real, np.zeros(300), n)["value"]
        assert low < value < high or abs(value - (low + high) / 2) < (high - low)
    assert sum(found) >= 17


def test_patients_who_differ_widen_kid_s_interval():
    apart = _normal(15, 5, scale=2)[GROUPS]  # each group has a mean of its own
    real = _normal(300, 1) + apart
    by_group, by_tile = (kid_interval(_normal(300, 2), real, groups, 0) for groups in (GROUPS, np.zeros(300)))
    right = []
    for n in range(30):  # patients who differ, and samples of the same population
        real, synthetic = (
            _normal(300, 100 + 4 * n + k) + _normal(m, 102 + 4 * n + k)[np.arange(300) % m]
            for k, m in ((0, 15), (1, 300))
        )
        low, high = kid_interval(synthetic, real, GROUPS, n)["interval"]
        right.append(low <= 0 <= high)
    assert sum(right) >= 26
    width = [high - low for low, high in (by_group["interval"], by_tile["interval"])]
    assert width[0] > 1.5 * width[1]


def test_density_and_coverage_by_hand():
    real = np.array([[0.0], [1], [2], [10]], np.float32)
    synthetic = np.array([[0.5], [1.5], [50]], np.float32)
    found = density_coverage(real, synthetic, 1)
    assert found["density"] == pytest.approx((2 + 2) / 3) and found["coverage"] == pytest.approx(3 / 4)
    assert density_coverage(real, synthetic[2:], 1) == {"density": 0.0, "coverage": 0.0}


@given(seed=st.integers(0, 50), neighbours=st.integers(1, 5))
@settings(deadline=None, max_examples=20)
def test_a_set_covers_itself(seed, neighbours):
    real = _normal(30, seed)
    found = density_coverage(real, real, neighbours)
    assert found["coverage"] == 1 and found["density"] >= 1


def test_authenticity_is_nought_of_copies_and_about_a_half_of_fresh_draws():
    train = _normal(500, 1)
    assert authenticity(train, train + 1e-6) == 0
    assert authenticity(train, _normal(500, 2)) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize(("broken", "shown"), [
    (lambda train, held: np.repeat(held[:1], len(held), 0), lambda m, f: m["recall"] < 0.1 and m["coverage"] < 0.3),
    (lambda train, held: _normal(len(held), 9, scale=4), lambda m, f: m["precision"] < 0.3 and m["density"] < 0.5),
    (lambda train, held: train[: len(held)] + 1e-5, lambda m, f: m["authenticity"] < 0.1 < f["authenticity"]),
    (lambda train, held: 0.3 * _normal(len(held), 9), lambda m, f: m["recall"] < 0.2 and m["density"] > 1.5),
])  # fmt: skip
def test_a_broken_generator_shows_in_the_metric_that_is_for_it(broken, shown):
    """One image repeated; noise; copies of train; no variety."""
    train, held_out = _normal(400, 1), _normal(300, 2)
    good = compare(FeatureSets(_normal(300, 3), held_out, train, GROUPS), subsets=10, neighbours=3, seed=0)
    assert not shown(good, good["floor"])
    sets = FeatureSets(broken(train, held_out), held_out, train, GROUPS)
    found = compare(sets, subsets=10, neighbours=3, seed=0)
    assert shown(found, found["floor"]), found


def test_inception_score_is_one_of_what_is_all_alike_and_the_number_of_classes_of_what_is_all_sure():
    assert inception_score(np.ones((50, 4), np.float32), 0)["mean"] == pytest.approx(1)
    sure = 100 * np.eye(4, dtype=np.float32)[np.arange(4000) % 4]
    assert inception_score(sure, 0)["mean"] == pytest.approx(4, rel=0.02)


def test_clip_score_is_higher_with_own_captions_than_with_dealt_ones():
    captions = pd.Series(["a", "b", "b", None])

    def compare_text(images, names):
        assert names == ["a", "b"] and len(images) == 3
        return np.array([[1, 0], [0, 1], [0, 1]], float)

    found = clip_score(compare_text, np.zeros((4, 2, 2, 3)), captions)
    assert found["own"] == 1 and found["shuffled"] == pytest.approx((1 / 3 + 2 / 3 + 2 / 3) / 3)
    assert clip_score(compare_text, np.zeros((2, 2, 2, 3)), pd.Series([None, ""])) == {}


def test_of_too_few_nothing_is_said():
    few = FeatureSets(_normal(5, 1), _normal(50, 2), _normal(50, 3), GROUPS[:50])
    assert compare(few, subsets=2, neighbours=3, seed=0) == {}


def test_precision_and_recall_of_one_kind_are_high():
    found = precision_recall(_normal(300, 1), _normal(300, 2), 3)
    assert min(found.values()) > 0.6
