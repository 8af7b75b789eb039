"""A model that learns a few tiles beside its own keeps what it could make, and goes on alike after a break."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from histoloom.backbones.denoiser import load_denoiser
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.process.predictor import Given, Predictor
from histoloom.process.process import Process
from histoloom.process.sampler import pure, sample
from histoloom.process.solver import make_solver
from histoloom.training.denoiser import train_denoiser
from histoloom.training.run import TrainingRun

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]

SPECS = (ConditionSpec("label", "vector", 1, 0.1),)
COMMON = {"channels": (16, 16), "conditions": ("label",), "target": "pixels", "batch_size": 8, "ema_decay": 0.8}


def _train(folder: Path, level: float, steps: int, **stated) -> float:
    """Train on flat tiles of a level; the mean of what is made without a label."""
    rng = np.random.default_rng(0)
    data = (level + 0.05 * rng.standard_normal((16, 1, 1, 8, 8))).astype(np.float32)
    arrays = {"data": data, "label": np.ones((16, 1), np.float32)}
    config = TrainDenoiser(**COMMON, steps=steps, learning_rate=3e-3, warmup_steps=5, **stated)
    run = TrainingRun("train", steps, 3e-3, 1, folder / "checkpoints", 20, warmup_steps=5, ema_decay=0.8, batch_size=8)
    train_denoiser(config, arrays, SPECS, run, folder)
    network, record = load_denoiser(folder, "cpu")
    process = Process.of(record.training)
    solver, noise = (
        make_solver("ddim", process, 10),
        torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(3)),
    )
    null = Conditions(vector=torch.zeros(16, 1))
    predictor = Predictor(network, process, SPECS, lambda _: lambda _: 1.0, 1.0)
    return float(
        sample(predictor, solver, pure(solver, noise), Given(null, Conditions(vector=torch.zeros(1, 1)))).mean()
    )


def test_what_it_could_make_stays_where_its_own_tiles_are_trained_on(tmp_path):
    before = _train(tmp_path / "first", 0.7, 150, drop={"label": 0.5})
    adapted = {"init": str(tmp_path / "first"), "drop": {"label": 0.0}}
    prior = {"tiles": 16, "leave_out": ["label"], "steps": 8}
    free = _train(tmp_path / "free", -0.7, 80, **adapted)
    kept = _train(tmp_path / "kept", -0.7, 80, **adapted, prior=prior)
    assert before > 0.4
    assert abs(kept - before) < 0.7 * abs(free - before)


def test_its_own_tiles_are_the_same_on_every_start(tmp_path):
    _train(tmp_path / "first", 0.7, 20)
    prior = {"init": str(tmp_path / "first"), "prior": {"tiles": 5, "leave_out": ["label"], "steps": 2}}
    assert _train(tmp_path / "a", -0.7, 6, **prior) == _train(tmp_path / "b", -0.7, 6, **prior)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"prior": {"leave_out": ["label"]}}, "is of a model that is loaded"),
        ({"init": "m", "prior": {"leave_out": ["text"]}}, r"leave_out names \['text'\]"),
        ({"init": "m", "prior": {"leave_out": ["label"]}, "windows_latent_px": (4,)}, "whole tiles"),
    ],
)
def test_what_can_t_be_kept_is_refused(stated, message):
    with pytest.raises(ValueError, match=message):
        TrainDenoiser(conditions=("label",), **stated)
