"""Synthetic tiles are thinned out to what real tiles of their class are like."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from histoloom.config import Params, TrainAutoencoder
from histoloom.data.commit import link_tree
from histoloom.data.schema import REFUSED, SYNTHETIC_ROW
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.quality.filters.base import Tiles
from histoloom.quality.filters.filter_set import FilterSet
from histoloom.quality.filters.realism import RealismFilter
from histoloom.targets.autoencoder import build_autoencoder
from histoloom.targets.latents import Latents, save_latent_scale
from tests.build import make_part, synthetic_rows, tile_rows, write_synthetic_lineage
from tests.quality.filtered_tiles import fitting_of
from tests.quality.test_broken_generator import SIDE, tissue
from tests.stages import run, study_of

AXES, COUNT = 12, 400


def of_features(name: str, features: np.ndarray, groups: int = 10, label: str = "a") -> Tiles:
    count = len(features)
    rows = pd.DataFrame(
        {
            "tile_id": [f"{name}-{n}" for n in range(count)],
            "label": label,
            "split_group": [f"{name}-{n % groups}" for n in range(count)],
        }
    )
    tiles = Tiles(np.zeros((count, 1, 1, 3), np.uint8), rows, lambda _: None, None)
    tiles.__dict__["features"] = features.astype(np.float32)
    return tiles


def drawn(seed: int, shift: float = 0.0, count: int = COUNT) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(count, AXES))
    features[:, 0] += shift
    return features


def fitted(held_out: Tiles, synthetic: Tiles, train: Tiles) -> RealismFilter:
    params = Params.model_validate({"tile": {"mpp": 1.0, "labels": {"source": "slide", "classes": ["a", "b"]}}})
    return RealismFilter.fit(replace(fitting_of(train, params, Path()), held_out=held_out, synthetic=synthetic))


def passes(found: RealismFilter, tiles: Tiles) -> np.ndarray:
    return FilterSet((found,), {"realism": 0.0})(tiles)["accepted"].to_numpy(bool)


REAL = of_features("val", drawn(0))
TRAIN = of_features("train", drawn(1))


def test_of_a_mixture_what_is_like_real_tiles_passes():
    """Half of the samples lie far off: few of these pass, and nearly all of the others, of which there are too few."""
    mixed = np.concatenate([drawn(2, count=COUNT // 2), drawn(3, 6.0, COUNT // 2)])
    synthetic = of_features("made", mixed)
    found = passes(fitted(REAL, synthetic, TRAIN), synthetic)
    assert found[: COUNT // 2].mean() > 0.9 and found[COUNT // 2 :].mean() < 0.15


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0, 2.0])
def test_what_passes_is_the_overlap_and_lies_nearer_to_real_tiles(shift):
    """Two normal distributions overlap by 2 Phi(-shift / 2)."""
    synthetic = of_features("made", drawn(2, shift, 1000))
    found = passes(fitted(of_features("val", drawn(0, count=1000)), synthetic, TRAIN), synthetic)
    overlap = {0.0: 1.0, 0.5: 0.803, 1.0: 0.617, 2.0: 0.317}[shift]
    assert found.mean() == pytest.approx(overlap, abs=0.07)
    if shift:
        assert synthetic.features[found, 0].mean() < 0.8 * shift


def test_a_verdict_depends_on_the_tile_alone():
    synthetic = of_features("made", drawn(2, 1.0))
    found = fitted(REAL, synthetic, TRAIN)
    every, some = passes(found, synthetic), np.arange(COUNT) % 3 == 1
    assert 0 < every.sum() < COUNT and (passes(found, synthetic.part(some)) == every[some]).all()


def test_patients_that_differ_are_not_held_against_the_generator():
    """Held-out patients lie apart from train's; samples are as train's tiles are, and more pass than if no real tile were like them."""
    synthetic = of_features("made", drawn(2, 1.5))
    found = fitted(REAL, synthetic, of_features("train", drawn(1, 1.5)))
    assert passes(found, synthetic).mean() > passes(fitted(REAL, synthetic, TRAIN), synthetic).mean() + 0.15


@pytest.mark.parametrize("real, made", [(49, 400), (400, 49)])
def test_of_few_tiles_it_cannot_tell_and_lets_them_pass(real, made):
    synthetic = of_features("made", drawn(2, 9.0, made))
    found = fitted(of_features("val", drawn(0, count=20)), synthetic, of_features("train", drawn(1, count=real - 20)))
    assert found.scores(synthetic)["realism_score"].isna().all() and passes(found, synthetic).all()


def test_what_is_kept_decides_the_same(tmp_path):
    synthetic = of_features("made", drawn(2, 1.0))
    found = fitted(REAL, synthetic, TRAIN)
    found.save(tmp_path)
    again = RealismFilter.load(tmp_path)
    pd.testing.assert_frame_equal(again.scores(synthetic), found.scores(synthetic))


# through the stage


def _params(use: tuple[str, ...], min_yield: float) -> Params:
    labels = {"source": "slide", "classes": ["good", "bad", "few"]}
    tile = {"mpp": 1.0, "tile_px": SIDE, "labels": labels}
    return Params.model_validate({"tile": tile, "filter": {"use": list(use), "min_yield": min_yield}})


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Real tiles of three splits, and synthetic ones: good as fresh tissue, bad as noise on it, and few of a third class."""
    folder = tmp_path_factory.mktemp("realism")
    labels = ["good"] * 75 + ["bad"] * 75 + ["few"] * 10
    for number, split in enumerate(("train", "val", "test")):
        images = np.concatenate([tissue(2 * number), tissue(2 * number + 1)])
        rows = tile_rows(160, split=split, label=labels).assign(
            tile_id=[f"{split}-{n}" for n in range(160)], split_group=[f"{split}-{n % 12}" for n in range(160)]
        )
        make_part(folder / "data/tiles", split, rows, images)
    images = np.concatenate([tissue(8), tissue(9)]).astype(int)
    noise = np.random.default_rng(0).normal(0, 12, (75, *images.shape[1:]))
    images[75:150] += noise.astype(int)
    rows = synthetic_rows(160, label=labels)
    for part in (0, 1):
        own = np.arange(160) % 2 == part
        made = images[own].clip(0, 255).astype(np.uint8)
        make_part(folder / "data/synthetic", f"part-{part}", rows[own].reset_index(drop=True), made, SYNTHETIC_ROW)
    write_synthetic_lineage(folder / "data/synthetic")
    return folder


@pytest.mark.long
def test_the_stage_fits_it_and_refuses_a_class_of_which_too_little_passes(study):
    params = _params(("realism",), 0.4)
    run("train_filters", study_of(params, study))
    found = run("filter", study_of(params, study))
    assert set(found["refused"]) == {"bad"} and found["refused"]["bad"]["accepted"] < 30
    by_class = found["augment"]["by_class"]
    assert by_class["bad"]["accepted"] == 0 and by_class["bad"]["rejected_for"][REFUSED] == 75
    assert by_class["good"]["accepted"] > 50 and by_class["good"]["not_told"] == 0
    few = {"synthetic": 10, "accepted": 10, "not_told": 10, "medians": {}}
    assert by_class["few"] == few | {"rejected_for": {RealismFilter.reason: 0}}
    assert found["of_generator"]["realism"]["false_rejection_of_test"] < 0.4
    rows = TileStore(study / "data/synthetic", rows_from=study / "data/verdicts").rows()
    assert rows.loc[rows["label"] == "bad", "reject_reasons"].map(lambda r: REFUSED in r).all()
    assert rows["accepted"].eq(rows["reject_reasons"].str.len() == 0).all()


@pytest.mark.long
def test_the_stage_fails_where_no_class_is_left(study, folder):
    params, store = _params(("realism",), 0.4), TileStore(study / "data/synthetic")
    link_tree(study / "data/tiles", folder / "data/tiles")
    bad = store.rows()[store.rows()["label"] == "bad"]
    make_part(folder / "data/synthetic", "part", bad.reset_index(drop=True), store.read(bad), SYNTHETIC_ROW)
    write_synthetic_lineage(folder / "data/synthetic")
    run("train_filters", study_of(params, folder))
    with pytest.raises(HistoloomError, match="no tile of any class is left"):
        run("filter", study_of(params, folder))
    assert not TileStore(folder / "data/synthetic", rows_from=folder / "data/verdicts").rows()["accepted"].any()


@pytest.mark.long
def test_what_an_autoencoder_loses_is_not_held_against_its_tiles(study, folder):
    """Samples are fresh tissue as an autoencoder gives it back that loses much: beside real tiles they would all be told apart."""
    for name in ("tiles", "synthetic"):
        link_tree(study / "data" / name, folder / "data" / name)
    params, target = _params(("realism",), 0.0), _autoencoder(folder / "models/autoencoder")
    store = TileStore(folder / "data/synthetic")
    good = store.rows()[store.rows()["label"] == "good"]
    images = target.decode(target.encode({"image": store.read(good)}))["image"]
    shutil.rmtree(folder / "data/synthetic")
    make_part(folder / "data/synthetic", "part", good.reset_index(drop=True), images, SYNTHETIC_ROW)
    write_synthetic_lineage(folder / "data/synthetic")
    run("train_filters", study_of(params, folder))
    assert run("filter", study_of(params, folder))["augment"]["accepted"] > 45
    shutil.rmtree(folder / "models/autoencoder")
    shutil.rmtree(folder / ".work", ignore_errors=True)
    with pytest.raises(HistoloomError, match="no tile of any class is left"):
        run("filter", study_of(_params(("realism",), 0.3), folder))


def _autoencoder(folder: Path) -> Latents:
    """One that has learnt nothing, but for its scale."""
    torch.manual_seed(0)
    build_autoencoder(TrainAutoencoder(channels=16)).save_pretrained(folder)
    save_latent_scale(folder, torch.zeros(4), torch.ones(4))
    return Latents.load(folder, "cpu")
