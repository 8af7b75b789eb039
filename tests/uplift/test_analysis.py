"""Measures by hand, intervals that mean what they say, and verdicts that say no more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.uplift.analysis import analyse, paired_difference, verdict
from histoloom.uplift.choice import best_other, best_rates, detectable
from histoloom.uplift.tasks import LabelTask, label_task
from tests.build import tile_rows
from tests.uplift.studies import CLASSES


def test_measures_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    found = LabelTask(CLASSES, np.zeros(4), np.array([0, 0, 1, 1])).measures(probabilities)
    assert found["recall"] == {"pink": 1.0, "blue": 0.5} and found["balanced_accuracy"] == 0.75
    assert found["precision"] == {"pink": 2 / 3, "blue": 1.0}
    assert found["auroc"] == pytest.approx(3 / 4)
    lacking = LabelTask(CLASSES, np.zeros(4), np.array([0, 0, 0, 0])).measures(probabilities)
    assert lacking["recall"] == {"pink": 0.75} and lacking["auroc"] is None


def _right(fraction: float, seeds: int, n: int, rng) -> np.ndarray:
    return rng.random((seeds, n)) < fraction


@pytest.mark.parametrize(("groups", "covers"), [(20, "patients"), (3, "too few patients")])
def test_the_interval_holds_nought_where_arms_are_alike_and_not_where_they_differ(groups, covers):
    rng, n = np.random.default_rng(0), 400
    truth, names = rng.integers(0, 2, n), rng.integers(0, groups, n).astype(str)
    task = LabelTask(CLASSES, names, truth)
    same = paired_difference(task, _right(0.7, 5, n, rng), _right(0.7, 5, n, rng), np.random.default_rng(1))
    assert same["interval"][0] < 0 < same["interval"][1] and covers in same["covers"]
    better = paired_difference(task, _right(0.6, 5, n, rng), _right(0.8, 5, n, rng), np.random.default_rng(1))
    assert better["interval"][0] > 0.1 and better["difference"] == pytest.approx(0.2, abs=0.05)


@dataclass(frozen=True)
class _Mean:
    """A task whose score is what the tiles have on average."""

    groups: np.ndarray
    folds: np.ndarray | None = None

    def score(self, evidence: np.ndarray, weight: np.ndarray) -> float:
        return float(np.average(evidence, weights=weight))


@pytest.mark.parametrize(("seeds", "of_seeds", "least"), [(2, 0.0, 0.9), (2, 1.0, 0.8), (5, 1.0, 0.9)])
def test_the_interval_holds_the_truth_as_often_as_it_says(monkeypatch, seeds, of_seeds, least):
    """20 patients who differ with variance 1, seeds that differ with `of_seeds`, and no true difference."""
    monkeypatch.setattr("histoloom.uplift.analysis._ROUNDS", 100)
    rng, task, held = np.random.default_rng(0), _Mean(np.arange(20).astype(str)), []
    for _ in range(120):
        drawn = rng.normal(size=(1, 20)) + rng.normal(0, of_seeds**0.5, (seeds, 1)) + rng.normal(size=(seeds, 20))
        low, high = paired_difference(task, 0 * drawn, drawn, rng)["interval"]
        held.append(low <= 0 <= high)
    assert np.mean(held) >= least


def test_seeds_of_different_folds_are_different_seeds(monkeypatch):
    """Three folds whose seeds differ, each with seeds of its own: paired across folds, two seeds would be far too few."""
    monkeypatch.setattr("histoloom.uplift.analysis._ROUNDS", 100)
    rng, names = np.random.default_rng(0), np.arange(30).astype(str)
    tasks = _Mean(names, np.repeat(np.arange(3), 10)), _Mean(names)
    held, widths = [], []
    for _ in range(60):
        drawn = rng.normal(size=(1, 30)) + np.repeat(rng.normal(0, 1, (2, 3)), 10, 1) + rng.normal(size=(2, 30))
        found = [paired_difference(task, 0 * drawn, drawn, rng)["interval"] for task in tasks]
        held.append(found[0][0] <= 0 <= found[0][1])
        widths.append([high - low for low, high in found])
    assert np.mean(held) >= 0.85 and np.median(widths, 0)[0] < 0.7 * np.mean(widths, 0)[1]


def test_one_seed_is_said_to_be_one():
    first, second = np.random.default_rng(0).random((2, 1, 20))
    found = paired_difference(_Mean(np.arange(20).astype(str)), first, second, np.random.default_rng(0))
    assert found["covers"] == "patients (split groups), of one seed: another may give something else"


def test_a_class_of_one_patient_is_named_and_no_draw_lacks_it():
    """Twelve patients, one of whom has all of the rare class, which is never found in the second arm."""
    truth = np.array([0] * 22 + [1] * 2)
    groups = np.repeat(np.arange(12), 2).astype(str)
    right = np.eye(2)[truth]
    predictions = {("real", 1.0): [right] * 2, ("synthetic", 1.0): [np.eye(2)[np.zeros(24, int)]] * 2}
    found = analyse(predictions, LabelTask(CLASSES, groups, truth), "real", 0)
    assert found["thin_classes"] == {"blue": 1}
    assert found["arms"][1]["interval"] == [-0.5, -0.5] and "was worse" in found["arms"][1]["verdict"]


def test_where_there_is_no_interval_nothing_is_said():
    said = verdict({"difference": np.nan, "interval": [np.nan, np.nan]}, "real+synthetic", "real", 20, "Dice")
    assert said.startswith("Nothing can be said")


@given(low=st.floats(-1, 1), width=st.floats(0, 1), groups=st.integers(1, 30))
@settings(max_examples=50)
def test_the_verdict_says_help_only_where_the_interval_lies_above_nought(low, width, groups):
    said = verdict(
        {"difference": low + width / 2, "interval": [low, low + width]}, "real+synthetic", "real", groups, "Dice"
    )
    assert ("was better than" in said) == (low > 0) and ("was worse" in said) == (low + width < 0 and not low > 0)
    assert ("No measurable difference" in said) == (low <= 0 <= low + width)
    assert ("nothing follows for other patients" in said) == (groups < 10)


def test_of_many_arms_that_do_nothing_none_is_said_to_help_without_a_word_on_chance(monkeypatch):
    """Forty arms of the same truth: some intervals exclude nought, and hardly ever do those of all comparisons."""
    monkeypatch.setattr("histoloom.uplift.analysis._ROUNDS", 100)
    truth, groups = np.arange(240) % 2, (np.arange(240) // 12).astype(str)
    rng = np.random.default_rng(0)

    def predicted() -> np.ndarray:
        return np.eye(2)[np.where(rng.random(240) < 0.7, truth, 1 - truth)]

    predictions = {("real", 1.0): [predicted() for _ in range(2)]}
    predictions |= {("synthetic", float(n)): [predicted() for _ in range(2)] for n in range(2, 42)}
    found = analyse(predictions, LabelTask(CLASSES, groups, truth), "real", 0)
    assert found["comparisons"] == 40
    claims = [arm["verdict"] for arm in found["arms"][1:] if "No measurable" not in arm["verdict"]]
    assert claims and all("may be chance" in said for said in claims)
    for arm in found["arms"][1:]:
        (low, high), (least, most) = arm["interval"], arm["interval_of_all"]
        assert least <= low <= high <= most


def test_a_gain_is_over_the_best_other_arm():
    test = tile_rows(20, split="test", label=list(CLASSES) * 10, split_group=[f"p{n}" for n in range(20)])
    good = np.tile([[0.9, 0.1], [0.1, 0.9]], (10, 1))
    predictions = {("real", 1.0): [1 - good] * 2, ("strong", 1.0): [1 - good] * 2, ("strong+ssl", 1.0): [good] * 2}
    predictions |= {
        ("strong+synthetic", 1.0): [good] * 2,
        ("strong+synthetic", 4.0): [1 - good] * 2,
        ("synthetic", 1.0): [good] * 2,
    }
    task = label_task(test, CLASSES)
    other = best_other(predictions, task)
    assert other == ("strong+ssl", 1.0), "real tiles without augmentation are no bar"
    found = analyse(predictions, task, "real", 0, other)
    assert [(change["arm"], change["ratio"], change["against"], change["difference"]) for change in found["gain"]] == [
        ("strong+synthetic", 1, "strong+ssl", 0),
        ("strong+synthetic", 4, "strong+ssl", -1),
    ]
    assert found["comparisons"] == 5 + 2
    from_strong = {key: value for key, value in predictions.items() if key[0] != "real"}
    assert analyse(from_strong, task, "strong", 0, ("strong", 1.0))["comparisons"] == 4, "none is counted twice"


def test_val_chooses_each_arms_learning_rate_by_its_seeds_together():
    val = tile_rows(20, split="val", label=list(CLASSES) * 10, split_group=[f"p{n}" for n in range(20)])
    good = np.tile([[0.9, 0.1], [0.1, 0.9]], (10, 1))
    tried = {("real", 1.0, 1e-3): [good, 1 - good], ("real", 1.0, 1e-4): [good, good], ("strong", 1.0, 1e-3): [good]}
    assert best_rates(tried, label_task(val, CLASSES)) == {("real", 1.0): 1e-4, ("strong", 1.0): 1e-3}


@pytest.mark.parametrize("more", [1, 4])
def test_what_can_be_seen_is_finer_with_more_test_patients(more):
    rng, truth = np.random.default_rng(0), np.arange(80) % 2
    task = LabelTask(CLASSES, (np.arange(80) // 4).astype(str), truth)
    said = {
        (arm, 1.0): [np.eye(2)[np.where(rng.random(80) < 0.8, truth, 1 - truth)] for _ in range(3)]
        for arm in ("real", "strong")
    }
    pair = (("real", 1.0), ("strong", 1.0))
    found = detectable(
        said, task, np.tile(task.groups, more).astype(object) if more == 1 else np.arange(20 * more).astype(str), pair
    )
    whole = detectable(said, task, task.groups, pair)
    assert found == pytest.approx(whole / np.sqrt(more), rel=1e-6)
    assert 0.05 < whole < 0.6
    alike = {key: [np.eye(2)[truth]] * 2 for key in said}
    assert detectable(alike, task, task.groups, pair) is None, "arms that never differ tell nothing"


def test_analysis_compares_each_arm_with_the_first():
    test = tile_rows(20, split="test", label=list(CLASSES) * 10, split_group=[f"p{n}" for n in range(20)])
    good = np.tile([[0.9, 0.1], [0.1, 0.9]], (10, 1))
    predictions = {("real", 1.0): [1 - good] * 2, ("real+synthetic", 2.0): [good] * 2}
    predictions[("real+unfiltered", 2.0)] = [good] * 2
    found = analyse(predictions, label_task(test, CLASSES), "real", 0)
    assert found["filtering"][0]["difference"] == 0 and "No measurable difference" in found["filtering"][0]["verdict"]
    assert "gain" not in found
    real, both, _ = found["arms"]
    assert "verdict" not in real and both["difference"] == 1 and both["interval"] == [1, 1]
    assert (
        "'real+synthetic, ratio 2' was better than 'real'" in both["verdict"]
        and "other patients" not in both["verdict"]
    )
