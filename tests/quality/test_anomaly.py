"""A denoiser of pixels, trained for a few steps, knows tissue from what was spoilt on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from histoloom.config import Params, TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.data.lineage import Lineage
from histoloom.data.schema import SYNTHETIC_ROW
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.quality.filters.anomaly import AnomalyFilter
from histoloom.quality.filters.base import Fitting, Tiles
from histoloom.training.denoiser import train_denoiser
from histoloom.training.run import TrainingRun
from tests.build import make_part, synthetic_rows, tile_rows, write_synthetic_lineage
from tests.quality.filtered_tiles import LABELS, SIDE, fitting_of, make_tiles, with_images
from tests.stages import run, study_of

pytestmark = pytest.mark.long


def write_models(folder: Path, tiles: Tiles, steps: int) -> None:
    """A denoiser of these tiles' pixels under their labels."""
    labels = np.eye(2, dtype=np.float32)[[LABELS.index(label) for label in tiles.rows["label"]]]
    pixels = tiles.images.astype(np.float32).transpose(0, 3, 1, 2)[:, None] / 127.5 - 1
    config = TrainDenoiser(
        conditions=("label",), target="pixels", channels=(16, 32), batch_size=16, learning_rate=2e-3, steps=steps
    )
    run = TrainingRun("t", steps, 2e-3, 0, folder / "checkpoints", 500, ema_decay=0.9)
    train_denoiser(
        config, {"data": pixels, "label": labels}, (ConditionSpec("label", "vector", 2),), run, folder / "denoiser"
    )
    for name in ("autoencoder", "denoiser", "encoders"):
        (folder / name).mkdir(exist_ok=True)
        Lineage().save(folder / name)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[AnomalyFilter, Tiles, Fitting]:
    """The filter, and tiles that neither it nor its denoiser was taught by."""
    folder, train = tmp_path_factory.mktemp("anomaly"), make_tiles(1, 120)
    labels = {"source": "slide", "classes": list(LABELS)}
    params = Params.model_validate({"tile": {"mpp": 1.0, "tile_px": SIDE, "labels": labels}})
    write_models(folder / "models", train, 150)
    fitting = fitting_of(train, params, folder)
    return AnomalyFilter.fit(fitting), make_tiles(2, 120), fitting


def smoothed(images: np.ndarray) -> np.ndarray:
    return np.stack([gaussian_filter(image, (5, 5, 0)) for image in images])


def speckled(images: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 15, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("spoil", "sign"), [(smoothed, -1), (speckled, 1)])
def test_tiles_that_are_too_smooth_or_too_rough_are_caught(fitted, spoil, sign):
    found, held_out, _ = fitted
    scores = found.scores(held_out)["anomaly_score"].to_numpy()
    spoilt = with_images(held_out, spoil(held_out.images))
    assert (found.scores(spoilt)["anomaly_score"] > found.threshold(scores, 0.05)).mean() > 0.6
    assert sign * (found._log_errors(spoilt) - found._log_errors(held_out)).mean() > 0


def test_a_tile_s_score_is_its_own_and_outlasts_its_folder(fitted, tmp_path):
    found, held_out, _ = fitted
    some = np.arange(len(held_out)) % 7 == 3
    every = found.scores(held_out)
    pd.testing.assert_frame_equal(found.scores(held_out.part(some)), every[some].reset_index(drop=True))
    found.save(tmp_path)
    pd.testing.assert_frame_equal(AnomalyFilter.load(tmp_path).scores(held_out), every)
    assert len(found.scores(held_out.part(some & False))) == 0


def test_a_class_of_few_train_tiles_is_standardised_by_all(fitted):
    found, held_out, fitting = fitted
    assert set(found.usual) == {"", *LABELS}
    few = fitting.train.part(np.arange(120) < 60)
    again = AnomalyFilter.fit(replace(fitting, train=few))
    assert set(again.usual) == {""} and np.isfinite(again.scores(held_out)["anomaly_score"]).all()


def test_without_a_denoiser_it_is_refused(fitted, tmp_path):
    _, _, fitting = fitted
    with pytest.raises(HistoloomError, match=r"filter\.use names anomaly"):
        AnomalyFilter.fit(fitting_of(fitting.train, fitting.params, tmp_path))


def test_where_no_sample_has_a_label_it_is_fitted_to_all_train_tiles(folder):
    for number, split in enumerate(("train", "val")):
        tiles = make_tiles(number + 1, 60)
        rows = tile_rows(60, split=split, label=tiles.rows["label"].tolist())
        make_part("data/tiles", split, rows.assign(tile_id=[f"{split}-{n}" for n in range(60)]), tiles.images)
        if split == "train":
            write_models(folder / "models", tiles, 5)
    make_part("data/synthetic", "part", synthetic_rows(60, label=None), make_tiles(3, 60).images, SYNTHETIC_ROW)
    write_synthetic_lineage("data/synthetic")
    labels = {"source": "slide", "classes": list(LABELS)}
    use = ["quality", "realism", "anomaly"]
    params = {"tile": {"mpp": 1.0, "tile_px": SIDE, "labels": labels}, "filter": {"use": use, "min_yield": 0.0}}
    params["train_denoiser"] = {"target": "pixels", "conditions": ["label"]}
    study = study_of(Params.model_validate(params), folder)
    run("train_filters", study)
    assert run("filter", study)["augment"]["not_told"] == 60
    rows = TileStore(folder / "data/synthetic", rows_from=folder / "data/verdicts").rows()
    assert rows["label"].isna().all() and np.isfinite(rows["anomaly_score"]).all()
