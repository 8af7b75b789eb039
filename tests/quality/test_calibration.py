"""Thresholds reject the fraction that was stated, of tiles that the filters were not fitted to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from histoloom.config import TrainFilters
from histoloom.errors import HistoloomError
from histoloom.quality.filters.base import Fitting, Tiles
from histoloom.quality.filters.calibration import RealTiles, _fraction_rejected, draw_calibration, measure_filter_set
from histoloom.quality.filters.filter_set import _cross_fitted, fit_filter_set
from histoloom.quality.filters.labels import LabelFilter
from histoloom.quality.filters.near_copy import CopyFilter
from histoloom.quality.filters.tissue import QualityFilter
from tests.quality.filtered_tiles import FRACTION, USE, fitting_of, make_tiles, tiles_of_patients

pytestmark = pytest.mark.long


def test_the_fraction_that_is_stated_is_the_fraction_of_real_tiles_rejected(calibration, held_out, train):
    filter_set = calibration.filter_set
    for filter_ in filter_set.filters:
        known, more = calibration.scores[filter_.name], len(train) if filter_.cross_fitted else 0
        own = calibration.held_out[filter_.column]
        assert len(known) == len(held_out) + more and (known[: len(held_out)] == own).all()
        found = filter_.rejects(known, filter_set.thresholds[filter_.name]).mean()
        assert FRACTION - 2 / len(held_out) < found <= FRACTION, filter_.name


def test_a_sharp_patient_held_out_does_not_make_others_tissue_suspect(fitting, tmp_path):
    rng = np.random.default_rng(0)
    train, sharp = tiles_of_patients([*rng.uniform(0.3, 1.8, 12)], 100), tiles_of_patients([0.9], 200)
    others = tiles_of_patients([*rng.uniform(0.3, 1.8, 12)], 300)
    fitted = fitting_of(train, fitting.params, tmp_path)
    found = fit_filter_set(("quality",), fitted, sharp, TrainFilters(false_rejection={"quality": 0.05}))
    (quality,) = found.filter_set.filters
    ours = quality.scores(others)["quality_score"].to_numpy()
    alone = quality.threshold(found.held_out["quality_score"].to_numpy(), 0.05)
    assert quality.rejects(ours, alone).mean() > 0.2, "calibrated on that patient alone"
    assert quality.rejects(ours, found.filter_set.thresholds["quality"]).mean() < 0.12
    assert len(found.scores["quality"]) == len(train) + len(sharp)


def test_a_label_of_one_patient_is_not_scored_by_those_who_lack_it(fitting, tmp_path):
    train = tiles_of_patients([0.5] * 4, 100)
    train.rows["label"] = ["plain"] * 24 + ["other"] * 8
    found = fit_filter_set(("distance",), fitting_of(train, fitting.params, tmp_path), train, TrainFilters())
    assert len(found.scores["distance"]) == len(train) + 24  # the last patient's tiles have no class to be like


@dataclass(frozen=True)
class Witness(QualityFilter):
    """Scores a tile by whether its group taught it; only tiles that are masked."""

    taught: frozenset
    name = "witness"

    @classmethod
    def fit(cls, fitting: Fitting):
        rows = fitting.train.rows
        return cls(None, frozenset(rows["split_group"][rows["masked"]]))

    @staticmethod
    def applies_to(tiles: Tiles) -> np.ndarray:
        return tiles.rows["masked"].to_numpy(bool)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        return pd.DataFrame({self.column: tiles.rows["split_group"].isin(self.taught).astype(float)})


@given(tiles=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), min_size=1, max_size=40))
def test_a_tile_is_scored_once_by_a_filter_that_its_group_did_not_teach(tiles):
    rows = pd.DataFrame(tiles, columns=["split_group", "masked"]).assign(label=None, part="p", index=range(len(tiles)))
    train = Tiles(np.zeros((len(rows), 1, 1, 3), np.uint8), rows, lambda _: None, None)
    fitting = fitting_of(train, None, Path())
    scores = np.concatenate([np.zeros(0), *(found for _, found in _cross_fitted([Witness], fitting))])
    applicable = rows[rows["masked"]]
    assert not scores.any()
    assert len(scores) == (len(applicable) if applicable["split_group"].nunique() > 1 else 0)


def test_a_mask_filter_of_two_patients_is_calibrated_on_how_they_see_each_other(fitting, held_out, tmp_path):
    train = make_tiles(3)
    train.rows["masked"] = train.rows["split_group"].isin(["p3", "p11"])
    config = TrainFilters(false_rejection={"mask": FRACTION})
    found = fit_filter_set(("mask",), fitting_of(train, fitting.params, tmp_path), held_out, config)
    others, own = (
        found.scores["mask"][len(held_out) :],
        found.filter_set.filters[0].scores(train)["mask_score"].dropna(),
    )
    assert len(others) == len(own) == 8
    assert (np.sort(others) != np.sort(own)).sum() > 4  # of other segmenters than the one that both taught
    assert {path.name for path in (tmp_path / "work/checkpoints").iterdir()} == {"mask", "mask-1", "mask-2"}


@given(n=st.integers(1, 400), fraction=st.floats(0, 0.5), seed=st.integers(0, 9))
def test_a_threshold_rejects_no_more_of_new_tiles_than_was_stated(n, fraction, seed):
    """Of scores drawn as the held-out ones were, k in n + 1 lie beyond the k-th worst."""
    scores = np.random.default_rng(seed).normal(size=n)
    low, high = (type(name, (QualityFilter,), {"high_is_bad": bad}) for name, bad in (("Low", False), ("High", True)))
    for kind in (low, high):
        filter_ = kind.__new__(kind)
        rejected = int(filter_.rejects(scores, filter_.threshold(scores, fraction)).sum())
        assert rejected == max(int(fraction * (n + 1) + 1e-9) - 1, 0)
        assert (rejected + 1) / (n + 1) <= max(fraction + 1e-9, 1 / (n + 1))


def test_a_filter_that_nothing_could_calibrate_says_so(fitting, held_out, capsys):
    unknown = replace(held_out, rows=held_out.rows.assign(rna=None))
    found = fit_filter_set(("rna",), fitting, unknown, TrainFilters())
    assert found.filter_set.thresholds == {"rna": None} and "filter 'rna' rejects nothing" in capsys.readouterr().err


def test_the_fraction_rejected_is_of_the_tiles_that_a_filter_looks_at(fitting):
    scores = pd.DataFrame({"label_score": [0.1, 0.9, np.nan, np.nan]})
    kind = LabelFilter.fit(fitting)
    assert _fraction_rejected(kind, scores, 0.5) == 0.5 and _fraction_rejected(kind, scores.iloc[2:], 0.5) is None


def test_a_fraction_finer_than_one_tile_is_read_off_the_tail():
    scores = np.random.default_rng(0).gumbel(0.3, 0.03, 400)
    filter_ = CopyFilter.__new__(CopyFilter)
    assert filter_.threshold(scores, 0.001) > scores.max() - 0.05 > filter_.threshold(scores, 0.05)
    assert filter_.threshold(scores, 0.001) == pytest.approx(0.3 + 0.03 * 6.907, abs=0.03)
    assert filter_.threshold(np.full(3, np.nan), 0.1) is None
    some_flat = np.concatenate([scores, np.full(20, np.nan), np.full(8, 0.01)])
    assert filter_.threshold(some_flat, 0.001) == pytest.approx(filter_.threshold(scores, 0.001), abs=0.02)
    with pytest.raises(HistoloomError, match="no tile is held out"):
        filter_.threshold(np.ones(200), 0.001)


def test_calibration_is_measured_and_drawn(calibration, train, held_out, tmp_path):
    config = TrainFilters(false_rejection=dict.fromkeys(USE, FRACTION))
    together, found, bad = measure_filter_set(calibration, RealTiles(train, held_out, make_tiles(3)), config, 0)
    assert found["label"]["balanced_accuracy"] > 0.8 and found["near_copy"]["planted_caught"] > 0.9
    assert set(found["quality"]["spoilt_caught"]) == {"blur", "noise", "wash-out", "wrong colour", "blank", "pen"}
    assert found["mask"]["exchanged_caught"] > 0.7 and len(bad["mask"]) == len(held_out)
    assert found["label"]["false_rejection_stated"] == FRACTION <= together["false_rejection_of_all"]
    assert together["test_tiles"] == 60 and found["quality"]["false_rejection_of_test"] < 0.3
    bad["near_copy"][0] = np.nan  # a flat tile has no score, and the others are drawn all the same
    draw_calibration(calibration, bad, tmp_path / "a/calibration.png")
    with Image.open(tmp_path / "a/calibration.png") as picture:
        panel = np.asarray(picture.convert("RGB"))[-int(picture.height / len(calibration.filter_set.filters)) :]
    assert (panel != panel[..., :1]).any(-1).mean() > 0.05, "the last panel, of near-copies, is empty"
    assert Path(tmp_path / "a/calibration.png").stat().st_size > 5000
