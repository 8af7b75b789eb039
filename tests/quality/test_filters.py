"""Filters: calibrated to the share they state, kept whole, and each catches the fault that it is there for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from histoloom.conditions.features import load_extractor
from histoloom.conditions.rna import CODES
from histoloom.config import Params, TrainFilters
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.quality.degrade import WAYS, degrade
from histoloom.quality.filters.agreement import RnaFilter
from histoloom.quality.filters.base import Fitting, Tiles
from histoloom.quality.filters.calibration import _share_rejected, draw_calibration, measure_judge
from histoloom.quality.filters.copies import CopyFilter
from histoloom.quality.filters.distance import DistanceFilter
from histoloom.quality.filters.judge import FILTERS, _cross_fitted, fit_judge, load_judge
from histoloom.quality.filters.labels import DisagreementFilter, LabelFilter
from histoloom.quality.filters.tissue import QualityFilter
from histoloom.quality.groups import group_draws
from histoloom.studies.filter import _check_yields
from histoloom.training.clip import train_clip
from histoloom.training.loop import TrainingRun
from tests.build import OTHER_STAINS, STAINS, make_part, tile_rows, tissue_picture

SIDE = 32
LABELS = ("plain", "other")


def make_tiles(seed: int, count: int = 60) -> Tiles:
    """Tiles of two stains, which their labels name, and masks of where they are dark."""
    pictures = [tissue_picture(512, 512, seed * 10 + n, stains) for n, stains in enumerate((STAINS, OTHER_STAINS))]
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for number in range(count):
        y, x = rng.integers(120, 360, 2)
        images.append(pictures[number % 2][y : y + SIDE, x : x + SIDE])
        labels.append(LABELS[number % 2])
    images = np.stack(images)
    rows = pd.DataFrame(
        {
            "tile_id": [f"{seed}-{n}" for n in range(count)],
            "label": labels,
            "caption": labels,
            "rna": labels,
            "masked": True,
            "split_group": [f"p{n // 4}" for n in range(count)],
        }
    )
    masks = (images.mean(-1) < 140).astype(np.uint8)
    return Tiles(images, rows, {"mask": masks}.__getitem__, load_extractor("efficientnet-lite0", "cpu"))


@pytest.fixture(scope="module")
def train() -> Tiles:
    return make_tiles(1)


@pytest.fixture(scope="module")
def held_out() -> Tiles:
    return make_tiles(2)


@pytest.fixture(scope="module")
def fitting(train, tmp_path_factory) -> Fitting:
    folder = tmp_path_factory.mktemp("filters")
    (folder / "encoders/rna").mkdir(parents=True)
    codes = pd.DataFrame(np.eye(2) * 3 - 1, index=pd.Index(LABELS), columns=["c0", "c1"])
    codes.to_parquet(folder / "encoders/rna" / CODES)
    params = Params.model_validate(
        {
            "tile": {
                "mpp": 1.0,
                "tile_px": SIDE,
                "labels": {"source": "polygons", "classes": list(LABELS)},
                "masks": {"source": "polygons", "classes": ["dark"]},
            },
            "train_filters": {"segmenter_steps": 60},
            "train_denoiser": {"conditions": ["label", "text", "mask"]},
            "train_encoders": {"text": {"image_px": 32, "width": 32, "layers": 1}},
        }
    )
    rows = part_of(folder / "tiles", train)
    run = TrainingRun("text", 60, 3e-3, 0, folder / "clip", 60, warmup_steps=5)
    train_clip(params.train_encoders.text, TileStore(folder / "tiles"), rows, run, folder / "encoders/text")
    return fitting_of(train, params, folder)


def part_of(folder: Path, tiles: Tiles) -> pd.DataFrame:
    """Tiles as a store; its rows."""
    rows = tile_rows(len(tiles), caption=tiles.rows["caption"].tolist())
    make_part(folder, "part", rows, tiles.images)
    return TileStore(folder).rows()


def fitting_of(train: Tiles, params: Params | None, folder: Path) -> Fitting:
    return Fitting(
        train,
        train.rows,
        lambda: [train.images[:40], train.images[40:]],
        params,
        folder / "encoders",
        folder / "work",
        "cpu",
    )


USE = ("quality", "distance", "label", "disagreement", "mask", "text", "rna", "near_copy")
SHARE = 0.12


@pytest.fixture(scope="module")
def judged(fitting, held_out):
    return fit_judge(USE, fitting, held_out, TrainFilters(false_rejection=dict.fromkeys(USE, SHARE)))


def test_the_share_that_is_stated_is_the_share_of_real_tiles_rejected(judged, held_out, train):
    judge, scores, calibrated = judged
    for filter_ in judge.filters:
        known, more = calibrated[filter_.name], len(train) if filter_.cross_fitted else 0
        assert len(known) == len(held_out) + more and (known[: len(held_out)] == scores[filter_.column]).all()
        found = filter_.rejects(known, judge.thresholds[filter_.name]).mean()
        assert SHARE - 2 / len(held_out) < found <= SHARE, filter_.name


def _of_patients(sharpness: list[float], seed: int) -> Tiles:
    """Eight tiles of each patient, whose slides were scanned so sharply (blurred by so many px)."""
    parts = []
    for number, blur in enumerate(sharpness):
        part = make_tiles(seed + number, 8)
        images = np.stack([gaussian_filter(image, (blur, blur, 0)) for image in part.images])
        parts.append((images, part.rows.assign(split_group=f"{seed}-{number}")))
    rows = pd.concat([rows for _, rows in parts], ignore_index=True)
    return Tiles(np.concatenate([images for images, _ in parts]), rows, lambda _: None, part.extractor)


def test_a_sharp_patient_held_out_does_not_make_others_tissue_suspect(fitting, tmp_path):
    rng = np.random.default_rng(0)
    train, sharp = _of_patients([*rng.uniform(0.3, 1.8, 12)], 100), _of_patients([0.9], 200)
    others = _of_patients([*rng.uniform(0.3, 1.8, 12)], 300)
    fitted = fitting_of(train, fitting.params, tmp_path)
    judge, scores, calibrated = fit_judge(("quality",), fitted, sharp, TrainFilters(false_rejection={"quality": 0.05}))
    (quality,) = judge.filters
    ours = quality.scores(others)["quality_score"].to_numpy()
    alone = quality.threshold(scores["quality_score"].to_numpy(), 0.05)
    assert quality.rejects(ours, alone).mean() > 0.2, "calibrated on that patient alone"
    assert quality.rejects(ours, judge.thresholds["quality"]).mean() < 0.12
    assert len(calibrated["quality"]) == len(train) + len(sharp)


def test_a_label_of_one_patient_is_not_scored_by_those_who_lack_it(fitting, tmp_path):
    train = _of_patients([0.5] * 4, 100)
    train.rows["label"] = ["plain"] * 24 + ["other"] * 8
    distances = fit_judge(("distance",), fitting_of(train, fitting.params, tmp_path), train, TrainFilters())[2][
        "distance"
    ]
    assert len(distances) == len(train) + 24  # the last patient's tiles have no class to be like


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
    def judges(tiles: Tiles) -> np.ndarray:
        return tiles.rows["masked"].to_numpy(bool)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        return pd.DataFrame({self.column: tiles.rows["split_group"].isin(self.taught).astype(float)})


@given(tiles=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), min_size=1, max_size=40))
def test_a_tile_is_scored_once_by_a_filter_that_its_group_did_not_teach(tiles):
    rows = pd.DataFrame(tiles, columns=["split_group", "masked"]).assign(label=None, part="p", index=range(len(tiles)))
    train = Tiles(np.zeros((len(rows), 1, 1, 3), np.uint8), rows, lambda _: None, None)
    fitting = Fitting(train, rows, list, None, Path(), Path(), "cpu")
    scores = np.concatenate([np.zeros(0), *(found for _, found in _cross_fitted([Witness], fitting))])
    judged = rows[rows["masked"]]
    assert not scores.any()
    assert len(scores) == (len(judged) if judged["split_group"].nunique() > 1 else 0)


def test_a_mask_filter_of_two_patients_is_calibrated_on_how_they_see_each_other(fitting, held_out, tmp_path):
    train = make_tiles(3)
    train.rows["masked"] = train.rows["split_group"].isin(["p3", "p11"])
    config = TrainFilters(false_rejection={"mask": SHARE})
    judge, _, calibrated = fit_judge(("mask",), fitting_of(train, fitting.params, tmp_path), held_out, config)
    others, own = calibrated["mask"][len(held_out) :], judge.filters[0].scores(train)["mask_score"].dropna()
    assert len(others) == len(own) == 8
    assert (np.sort(others) != np.sort(own)).sum() > 4  # of other segmenters than the one that both taught
    assert {path.name for path in (tmp_path / "work/checkpoints").iterdir()} == {"mask", "mask-1", "mask-2"}


@given(n=st.integers(1, 400), share=st.floats(0, 0.5), seed=st.integers(0, 9))
def test_a_threshold_rejects_no_more_of_new_tiles_than_was_stated(n, share, seed):
    """Of scores drawn as the held-out ones were, k in n + 1 lie beyond the k-th worst."""
    scores = np.random.default_rng(seed).normal(size=n)
    low, high = (type(name, (QualityFilter,), {"high_is_bad": bad}) for name, bad in (("Low", False), ("High", True)))
    for kind in (low, high):
        filter_ = kind.__new__(kind)
        rejected = int(filter_.rejects(scores, filter_.threshold(scores, share)).sum())
        assert rejected == max(int(share * (n + 1) + 1e-9) - 1, 0)
        assert (rejected + 1) / (n + 1) <= max(share + 1e-9, 1 / (n + 1))


def test_a_judge_that_was_kept_judges_the_same(judged, held_out, tmp_path):
    judge = judged[0]
    judge.save(tmp_path)
    again = load_judge(tmp_path)
    assert [f.name for f in again.filters] == list(USE)
    pd.testing.assert_frame_equal(again(held_out), judge(held_out), rtol=1e-4, atol=1e-4)


def test_verdicts_say_why(judged, held_out):
    verdicts = judged[0](held_out)
    assert verdicts["accepted"].eq(verdicts["reject_reasons"] == "").all() and not verdicts["accepted"].all()
    reasons = {reason for text in verdicts["reject_reasons"] for reason in text.split("; ") if text}
    assert reasons <= {FILTERS[name].reason for name in USE}


def _pictures(tiles: Tiles, images: np.ndarray) -> Tiles:
    return Tiles(images, tiles.rows, tiles.read, tiles.extractor)


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
    ("distance", lambda t: _pictures(t, _penned(t.images))),
    ("rna", partial(_swapped, column="rna")),
    ("text", partial(_swapped, column="caption")),
    ("mask", lambda t: Tiles(t.images, t.rows, lambda _: np.roll(t.read("mask"), 7, 0), t.extractor)),
    ("quality", lambda t: _pictures(t, degrade(t.images, np.random.default_rng(0))[0])),
    ("near_copy", lambda t: make_tiles(1)),
])  # fmt: skip
def test_each_filter_rejects_the_fault_that_it_is_for(name, spoil, judged, held_out):
    verdicts = judged[0](spoil(held_out))
    caught = verdicts["reject_reasons"].str.contains(FILTERS[name].reason, regex=False)
    assert caught.mean() > 0.7, caught.mean()


def test_tiles_without_a_label_are_judged_by_the_rest(judged, held_out):
    rows = held_out.rows.assign(label=None, rna=None)
    verdicts = judged[0](Tiles(held_out.images, rows, held_out.read, held_out.extractor))
    assert verdicts["label_score"].isna().all() and verdicts["rna_score"].isna().all()
    for name in ("label", "rna"):
        assert not verdicts["reject_reasons"].str.contains(FILTERS[name].reason, regex=False).any()


def test_a_filter_that_nothing_could_calibrate_says_so(fitting, held_out, capsys):
    unknown = replace(held_out, rows=held_out.rows.assign(rna=None))
    judge, _, _ = fit_judge(("rna",), fitting, unknown, TrainFilters())
    assert judge.thresholds == {"rna": None} and "filter 'rna' rejects nothing" in capsys.readouterr().err


def test_the_share_rejected_is_of_the_tiles_that_a_filter_looks_at(fitting):
    scores = pd.DataFrame({"label_score": [0.1, 0.9, np.nan, np.nan]})
    kind = LabelFilter.fit(fitting)
    assert _share_rejected(kind, scores, 0.5) == 0.5 and _share_rejected(kind, scores.iloc[2:], 0.5) is None


def test_an_empty_part_is_judged_too(judged, held_out):
    none = Tiles(held_out.images[:0], held_out.rows.head(0), lambda _: held_out.read("mask")[:0], held_out.extractor)
    assert len(judged[0](none)) == 0


def test_one_label_alone_has_no_label_filter(fitting, train):
    alone = Tiles(train.images, train.rows.assign(label="plain"), train.read, train.extractor)
    assert LabelFilter.fit(fitting_of(alone, fitting.params, fitting.work)) is None


def test_members_disagree_more_where_they_are_wrong(fitting, held_out):
    found = DisagreementFilter.fit(fitting)
    scores = found.scores(held_out)["disagreement_score"].to_numpy()
    wrong = LabelFilter(found.ensemble).scores(held_out)["label_score"].to_numpy() < 0.5
    assert 0 < wrong.sum() < len(wrong) and (scores > -1e-6).all()
    assert scores[wrong].mean() > scores[~wrong].mean()


def test_a_share_finer_than_one_tile_is_read_off_the_tail():
    scores = np.random.default_rng(0).gumbel(0.3, 0.03, 400)
    filter_ = CopyFilter.__new__(CopyFilter)
    assert filter_.threshold(scores, 0.001) > scores.max() - 0.05 > filter_.threshold(scores, 0.05)
    assert filter_.threshold(scores, 0.001) == pytest.approx(0.3 + 0.03 * 6.907, abs=0.03)
    assert filter_.threshold(np.full(3, np.nan), 0.1) is None
    some_flat = np.concatenate([scores, np.full(20, np.nan), np.full(8, 0.01)])
    assert filter_.threshold(some_flat, 0.001) == pytest.approx(filter_.threshold(scores, 0.001), abs=0.02)
    with pytest.raises(HistoloomError, match="no tile is held out"):
        filter_.threshold(np.ones(200), 0.001)


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


def test_tiles_without_masks_have_no_verdict_of_the_mask_filter(judged, held_out):
    verdicts = judged[0](Tiles(held_out.images, held_out.rows, lambda _: None, held_out.extractor))
    assert verdicts["mask_score"].isna().all()


def test_the_mask_filter_passes_unknown_masks_over(judged, held_out):
    unknown = held_out.rows.assign(masked=np.arange(len(held_out)) % 2 == 0)
    mask = next(f for f in judged[0].filters if f.name == "mask")
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


def test_calibration_is_measured_and_drawn(judged, train, held_out, tmp_path):
    judge, scores, calibrated = judged
    found, bad = measure_judge(
        judge, held_out, train, make_tiles(3), scores, TrainFilters(false_rejection=dict.fromkeys(USE, SHARE)), 0
    )
    assert found["label"]["balanced_accuracy"] > 0.8 and found["near_copy"]["planted_caught"] > 0.9
    assert set(found["quality"]["spoilt_caught"]) == {"blur", "noise", "wash-out", "wrong colour", "blank", "pen"}
    assert found["label"]["false_rejection_stated"] == SHARE <= found["false_rejection_of_all"]
    assert found["test_tiles"] == 60 and found["quality"]["false_rejection_of_test"] < 0.3
    bad["near_copy"][0] = np.nan  # a flat tile has no score, and the others are drawn all the same
    draw_calibration(judge, calibrated, bad, tmp_path / "a/calibration.png")
    with Image.open(tmp_path / "a/calibration.png") as picture:
        panel = np.asarray(picture.convert("RGB"))[-int(picture.height / len(judge.filters)) :]
    assert (panel != panel[..., :1]).any(-1).mean() > 0.05, "the last panel, of near-copies, is empty"
    assert Path(tmp_path / "a/calibration.png").stat().st_size > 5000


@pytest.mark.parametrize(("made", "accepted", "fails"), [(100, 1, True), (100, 2, False), (9, 0, False)])
def test_a_class_that_vanishes_is_an_error(made, accepted, fails):
    classes = {"rare": {"made": made, "accepted": accepted, "rejected_for": {"low tissue quality": made - accepted}}}
    if not fails:
        return _check_yields(classes, 0.02)
    with pytest.raises(HistoloomError, match=r"'rare': 1 of 100 \(low tissue quality: 99\).*min_yield"):
        _check_yields(classes, 0.02)


@given(seed=st.integers(0, 99), groups=st.integers(1, 14), rows=st.integers(2, 60))
@settings(deadline=None, max_examples=30)
def test_every_draw_holds_every_label_and_whole_groups(seed, groups, rows):
    rng = np.random.default_rng(seed)
    names, labels = rng.integers(0, groups, rows).astype(str), rng.choice(["a", "b"], rows)
    for draw in group_draws(names, labels, 3, rng):
        assert set(labels[draw]) == set(labels)
        if len(set(names)) >= 10 and set(labels[draw[: -rows or None]]) == set(labels):
            assert all(np.isin(np.flatnonzero(names == name), draw).all() for name in set(names[draw]))


def test_real_tiles_pass_the_quality_filter_that_spoilt_ones_fail(train, held_out):
    found = QualityFilter.fit(fitting_of(train, None, Path()))
    spoilt, ways = degrade(held_out.images, np.random.default_rng(1))
    real = found.scores(held_out)["quality_score"]
    bad = found.scores(_pictures(held_out, spoilt))["quality_score"]
    assert len(set(ways)) == 6 and bad.median() < real.min()
