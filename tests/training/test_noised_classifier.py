"""A classifier of noised data learns labels, and its gradient pushes to them what a model makes that was told none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from histoloom.conditions.batch import Conditions
from histoloom.config import Sample, TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.errors import HistoloomError
from histoloom.sampling.diffusion_model import DiffusionModel, load_diffusion_model
from histoloom.sampling.drawn import Drawn, Rows
from histoloom.training.denoiser import train_denoiser
from histoloom.training.run import TrainingRun

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:diffusers"),
]

CLASSES = ("dark", "light")
SPECS = (ConditionSpec("label", "vector", 2, 1.0, CLASSES),)


def trained(folder: Path, labels: np.ndarray, steps: int = 60, **stated) -> TrainingRun:
    """Flat tiles of two levels, by a denoiser that is never told which; and a classifier beside it."""
    rng = np.random.default_rng(0)
    levels = np.where(np.arange(len(labels)) % 2, 0.7, -0.7)[:, None, None, None, None]
    data = (levels + 0.05 * rng.standard_normal((len(labels), 1, 3, 8, 8))).astype(np.float32)
    config = TrainDenoiser(
        channels=(16, 16), conditions=("label",), target="pixels", batch_size=8, steps=120, learning_rate=3e-3,
        classifier={"channels": (8, 16), "steps": steps, "batch_size": 16, "learning_rate": 3e-3}, **stated,
    )  # fmt: skip
    run = TrainingRun("train", 120, 3e-3, 1, folder / "checkpoints", 30, warmup_steps=5, ema_decay=0.8, batch_size=8)
    train_denoiser(config, {"data": data, "label": labels}, SPECS, run, folder / "models/denoiser")
    return run


def made(model: DiffusionModel, labels: list[str], **stated) -> np.ndarray:
    """Mean grey of a tile of each label, (n,)."""
    nothing = Conditions(vector=torch.zeros(len(labels), 2))
    rows = Rows(
        np.arange(len(labels)), nothing, Conditions(vector=torch.zeros(1, 2)), asked={"label": labels, "text": labels}
    )
    drawn = Drawn(model, Sample(scheduler="ddim", steps=20, guidance=1, **stated), rows)
    return drawn.samples[0]["image"].mean((1, 2, 3))


def test_a_label_pushes_what_is_made(tmp_path):
    labels = np.eye(2, dtype=np.float32)[np.arange(32) % 2]
    labels[:3] = 0  # nobody said what these show
    run = trained(tmp_path, labels)
    accuracy = [numbers["classifier_accuracy"] for _, numbers in run.history if "classifier_accuracy" in numbers]
    assert accuracy[-1] > 0.7 and [step for step, _ in run.history] == sorted(step for step, _ in run.history)
    model = load_diffusion_model(tmp_path / "models", "1", "auto", "cpu")
    asked = ["dark", "light"] * 8 + ["", ""]
    free, pushed = made(model, asked), made(model, asked, classifier_guidance={"label": 4.0})
    assert pushed[0:16:2].mean() + 40 < free[:16].mean() < pushed[1:16:2].mean() - 40
    assert np.array_equal(free[16:], pushed[16:])


def test_a_model_without_one_is_refused_a_push(tmp_path):
    labels = np.eye(2, dtype=np.float32)[np.arange(16) % 2]
    trained(tmp_path, labels, steps=2)
    for file in (tmp_path / "models/denoiser/classifier").iterdir():
        file.unlink()
    (tmp_path / "models/denoiser/classifier").rmdir()
    model = load_diffusion_model(tmp_path / "models", "2", "auto", "cpu")
    with pytest.raises(HistoloomError, match="no classifier of noised tiles"):
        made(model, ["dark"], classifier_guidance={"label": 1.0})


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    labels = np.zeros((16, 2), np.float32)
    labels[4:, 1] = 1
    with pytest.raises(HistoloomError, match="fewer than two"):
        trained(tmp_path, labels, steps=2)
    with pytest.raises(ValueError, match="name label among conditions"):
        TrainDenoiser(conditions=("text",), classifier={})
