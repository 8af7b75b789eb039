"""Each filter catches the fault that it is there for, and passes over what it can't see."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histoloom.config.learners import DiffusionLearner
from histoloom.errors import HistoloomError
from histoloom.quality.filters.base import Tiles
from histoloom.quality.filters.conditions import RnaFilter
from histoloom.quality.filters.distance import DistanceFilter
from histoloom.quality.filters.filter_set import FILTERS
from histoloom.quality.filters.labels import LabelFilter
from histoloom.quality.filters.tissue import QualityFilter
from histoloom.quality.spoilt_tiles import WAYS, degrade
from tests.quality.filtered_tiles import LABELS, fitting_of, make_tiles, with_images

pytestmark = pytest.mark.long


def _penned(images: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([WAYS["pen"](image.astype(np.float32), rng) for image in images]).clip(0, 255).astype(np.uint8)


def _swapped(tiles: Tiles, column: str) -> Tiles:
    other = {LABELS[0]: LABELS[1], LABELS[1]: LABELS[0]}
    return Tiles(
        tiles.images, tiles.rows.assign(**{column: tiles.rows[column].map(other)}), tiles.read, tiles.extractor
    )


@pytest.mark.parametrize(("name", "spoil"), [
    ("label", partial(_swapped, column="label")),
    ("distance", lambda t: with_images(t, _penned(t.images))),
    ("rna", partial(_swapped, column="rna")),
    ("text", partial(_swapped, column="caption")),
    ("mask", lambda t: Tiles(t.images, t.rows, lambda _: np.roll(t.read("mask"), 7, 0), t.extractor)),
    ("quality", lambda t: with_images(t, degrade(t.images, np.random.default_rng(0))[0])),
    ("near_copy", lambda t: make_tiles(1)),
])  # fmt: skip
def test_each_filter_rejects_the_fault_that_it_is_for(name, spoil, filter_set, held_out):
    verdicts = filter_set(spoil(held_out))
    caught = np.array([FILTERS[name].reason in reasons for reasons in verdicts["reject_reasons"]])
    assert caught.mean() > 0.7, caught.mean()


def test_tiles_without_a_label_are_judged_by_the_rest(filter_set, held_out):
    rows = held_out.rows.assign(label=None, rna=None)
    verdicts = filter_set(Tiles(held_out.images, rows, held_out.read, held_out.extractor))
    assert verdicts["label_score"].isna().all() and verdicts["rna_score"].isna().all()
    for name in ("label", "rna"):
        assert FILTERS[name].reason not in set(verdicts["reject_reasons"].explode())


def test_one_label_alone_has_no_label_filter(fitting, train):
    alone = Tiles(train.images, train.rows.assign(label="plain"), train.read, train.extractor)
    assert LabelFilter.fit(fitting_of(alone, fitting.params, fitting.work)) is None


def test_a_small_class_has_the_spread_of_the_classes_and_not_the_distance_between_them(fitting):
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 1, (200, 20)), rng.normal(0, 1, (30, 20)) + 8 * np.eye(20)[0]]).astype(
        np.float32
    )
    rows = pd.DataFrame({"label": ["common"] * 200 + ["rare"] * 30})
    tiles = Tiles(np.zeros((230, 1, 1, 3), np.uint8), rows, lambda _: None, None)
    tiles.__dict__["features"] = features
    found = DistanceFilter.fit(fitting_of(tiles, None, Path()))
    taken_for_rare = Tiles(tiles.images, rows.assign(label="rare"), tiles.read, None)
    taken_for_rare.__dict__["features"] = features
    scores = found.scores(taken_for_rare)["distance_score"].to_numpy()
    assert np.median(scores[:200]) > np.quantile(scores[200:], 0.95) + 2


def test_tiles_without_masks_have_no_verdict_of_the_mask_filter(filter_set, held_out):
    verdicts = filter_set(Tiles(held_out.images, held_out.rows, lambda _: None, held_out.extractor))
    assert verdicts["mask_score"].isna().all()


def test_the_mask_filter_passes_unknown_masks_over(filter_set, held_out):
    unknown = held_out.rows.assign(masked=np.arange(len(held_out)) % 2 == 0)
    mask = next(f for f in filter_set.filters if f.name == "mask")
    scores = mask.scores(Tiles(held_out.images, unknown, held_out.read, held_out.extractor))["mask_score"]
    assert (scores.notna() == unknown["masked"]).all()


def test_what_rests_on_missing_conditions_is_refused_by_name(fitting, tmp_path):
    lacking = fitting_of(fitting.train, fitting.params, tmp_path)
    with pytest.raises(HistoloomError, match=r"filter\.use names rna"):
        RnaFilter.fit(lacking)
    with pytest.raises(HistoloomError, match=r"filter\.use names text"):
        FILTERS["text"].fit(lacking)
    bare = fitting.params.model_copy(
        update={"tile": fitting.params.tile.model_copy(update={"masks": type(fitting.params.tile.masks)()})}
    )
    with pytest.raises(HistoloomError, match=r"filter\.use names mask"):
        FILTERS["mask"].fit(fitting_of(fitting.train, bare, tmp_path))


def test_real_tiles_pass_the_quality_filter_that_spoilt_ones_fail(train, held_out):
    found = QualityFilter.fit(fitting_of(train, None, Path()))
    spoilt, ways = degrade(held_out.images, np.random.default_rng(1))
    real = found.scores(held_out)["quality_score"]
    bad = found.scores(with_images(held_out, spoilt))["quality_score"]
    assert len(set(ways)) == 6 and bad.median() < real.min()


def test_the_mask_filter_s_learner_is_calibrated_on_tiles_that_it_did_not_learn(filter_set, held_out):
    mask = next(f for f in filter_set.filters if f.name == "mask")
    before = mask.kept.learner.sure_masks(held_out.images)[1]
    sure, right = mask.sure_and_right(held_out)
    assert mask.kept.facts.certainty is not None and np.array_equal(sure, before.ravel())
    assert mask.kept.facts.right(sure).mean() == pytest.approx(right.mean(), abs=1e-3)
    lacking = Tiles(held_out.images, held_out.rows.assign(masked=False), held_out.read, held_out.extractor)
    assert mask.checked_on(lacking).kept.facts.certainty is None


@pytest.mark.long
def test_the_mask_filter_looks_with_the_learner_that_params_name_and_is_kept(fitting, tmp_path):
    told = {"name": "diffusion", "channels": [16, 32], "samples": 2, "sampling_steps": 2}
    config = fitting.params.train_filters.model_copy(
        update={"segmenter": DiffusionLearner(**told), "segmenter_steps": 3}
    )
    params = fitting.params.model_copy(update={"train_filters": config})
    (tmp_path / "kept").mkdir()
    fitted = FILTERS["mask"].fit(fitting_of(fitting.train, params, tmp_path))
    fitted.save(tmp_path / "kept")
    kept = FILTERS["mask"].load(tmp_path / "kept")
    assert kept.kept.facts == fitted.kept.facts and kept.kept.facts.classes == params.tile.masks.classes
    assert kept.scores(fitting.train).equals(fitted.scores(fitting.train))
