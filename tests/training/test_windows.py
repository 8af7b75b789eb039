"""Training on windows of tiles: latents and their maps are cut alike, at every side, and what can't be cut is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histoloom.backbones.denoiser import load_denoiser
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.errors import HistoloomError
from histoloom.training.denoiser import train_denoiser, windowed
from histoloom.training.run import TrainingRun

pytestmark = pytest.mark.long

SPECS = (ConditionSpec("label", "vector", 2, 0.5), ConditionSpec("mask", "map", 3, 0.5))


@given(st.integers(1, 6), st.integers(6, 9), st.integers(1, 5), st.integers(0, 99))
def test_a_window_s_latents_and_its_map_are_of_one_place(side, whole, count, seed):
    place = torch.arange(count * whole * whole).reshape(count, 1, whole, whole).float()
    rows = Conditions(vector=torch.arange(2.0 * count).reshape(count, 2), map=torch.cat([place, place + 0.5], 1))
    clean, given_ = windowed(place, rows, side, torch.Generator().manual_seed(seed))
    assert clean.shape == (count, 1, side, side)
    assert torch.equal(given_.map, torch.cat([clean, clean + 0.5], 1)) and torch.equal(given_.vector, rows.vector)
    first = clean[:, :, :1, :1]
    steps = torch.arange(side)[:, None] * whole + torch.arange(side)
    assert torch.equal(clean, first + steps), "not a square of its tile"
    assert torch.equal(first.flatten() // whole**2, torch.arange(count).float()), "not of its own row"


def test_every_window_of_a_tile_is_shown():
    tile, unconditional = torch.arange(9.0).reshape(1, 1, 3, 3).expand(200, -1, -1, -1), Conditions()
    clean, _ = windowed(tile, unconditional, 2, torch.Generator().manual_seed(0))
    assert set(clean[:, 0, 0, 0].tolist()) == {0.0, 1.0, 3.0, 4.0}


def _train(folder, **options):
    rng = np.random.default_rng(0)
    arrays = {
        "data": rng.standard_normal((8, 4, 4, 8, 8)).astype(np.float16),
        "label": np.eye(2, dtype=np.float32)[rng.integers(0, 2, 8)],
        "mask": rng.random((8, 3, 8, 8)).astype(np.float16),
    }
    config = TrainDenoiser(
        conditions=("label", "mask"), batch_size=4,
        **{"channels": (16, 32), "windows_latent_px": (4, 8), "steps": 8} | options,
    )  # fmt: skip
    run = TrainingRun("t", config.steps, 1e-3, 0, folder / "checkpoints", 50, ema_decay=0.9)
    train_denoiser(config, arrays, SPECS, run, folder)
    return load_denoiser(folder, "cpu")


def test_a_denoiser_learns_from_windows_and_so_does_its_student(tmp_path):
    model, record = _train(tmp_path / "first")
    assert record.training.px == 8
    distil = {"init": str(tmp_path / "first"), "distil": {"steps": 1, "teacher_steps": 2, "guidance": 2.0}}
    student, record = _train(tmp_path / "student", **distil)
    assert record.training.distilled == 1
    assert not torch.equal(model.network.conv_in.weight, student.network.conv_in.weight)


@pytest.mark.parametrize("sides", [(3,), (4, 16)])
def test_a_window_that_can_t_be_cut_or_halved_is_refused(tmp_path, sides):
    with pytest.raises(HistoloomError, match=f"names {sides[-1]}"):
        _train(tmp_path, windows_latent_px=sides)


def test_a_window_must_be_halved_as_often_as_the_model_that_is_begun_from_does(tmp_path):
    """Whatever `channels` says, which is of a new one."""
    _train(tmp_path / "first", channels=(16, 32, 32), windows_latent_px=())
    with pytest.raises(HistoloomError, match="names 6, and a window must be a multiple of 4"):
        _train(tmp_path / "second", init=str(tmp_path / "first"), windows_latent_px=(6,))
