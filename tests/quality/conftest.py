"""Filters that are fitted once for all of these tests."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from histoloom.conditions.rna import CODES
from histoloom.config import Params, TrainFilters
from histoloom.data.store import TileStore
from histoloom.quality.filters.base import Fitting, Tiles
from histoloom.quality.filters.filter_set import Calibration, FilterSet, fit_filter_set
from histoloom.training.clip import train_clip
from histoloom.training.run import TrainingRun
from tests.quality.filtered_tiles import FRACTION, LABELS, SIDE, USE, fitting_of, make_tiles, part_of


@pytest.fixture(scope="package")
def train() -> Tiles:
    return make_tiles(1)


@pytest.fixture(scope="package")
def held_out() -> Tiles:
    return make_tiles(2)


@pytest.fixture(scope="package")
def fitting(train, tmp_path_factory) -> Fitting:
    folder = tmp_path_factory.mktemp("filters")
    (folder / "models/encoders/rna").mkdir(parents=True)
    codes = pd.DataFrame(np.eye(2) * 3 - 1, index=pd.Index(LABELS), columns=["c0", "c1"])
    codes.to_parquet(folder / "models/encoders/rna" / CODES)
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
    train_clip(params.train_encoders.text, TileStore(folder / "tiles"), rows, run, folder / "models/encoders/text")
    return fitting_of(train, params, folder)


@pytest.fixture(scope="package")
def calibration(fitting, held_out) -> Calibration:
    return fit_filter_set(USE, fitting, held_out, TrainFilters(false_rejection=dict.fromkeys(USE, FRACTION)))


@pytest.fixture
def filter_set(calibration) -> FilterSet:
    return calibration.filter_set
