"""Tiny real canvases: an untrained UNet that reads a label and a map, and what is stated about its canvas."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import zarr

from histoloom.backbones.unet import UNet
from histoloom.canvas.condition_grid import ConditionGrid
from histoloom.canvas.inputs import ARRAYS, GRID, CanvasInputs
from histoloom.canvas.step import WindowDenoiser
from histoloom.conditions.batch import Conditions
from histoloom.config import Sample, TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.process.predictor import Predictor
from histoloom.process.process import Process
from histoloom.process.solver import make_solver

WINDOW, CHANNELS = 16, 4
BACKGROUND = (0.1, 0.2, 0.3, 0.4)
SPECS = (ConditionSpec("label", "vector", 2), ConditionSpec("mask", "map", 2))


def state_canvas(folder: Path, height: int, width: int, **arrays: np.ndarray) -> Path:
    """Write what is stated: left half the first label, right half the second, and `arrays` such as free or image."""
    folder.mkdir(parents=True)
    group = zarr.create_group(folder / ARRAYS)
    group.attrs["background"] = BACKGROUND
    ramp = np.linspace(0, 1, width, dtype=np.float16) * np.ones((2, height, 1), np.float16)
    for name, value in ({"free": np.ones((height, width), np.uint8), "map": ramp} | arrays).items():
        chunks = (*value.shape[:-2], 32, 32)
        group.create_array(name, shape=value.shape, dtype=value.dtype, chunks=chunks)[:] = value
    grid = ConditionGrid(Conditions(vector=torch.eye(2)), torch.tensor([[0, 1]]), (height, width / 2))
    grid.save(folder / GRID)
    return folder


@dataclass(frozen=True)
class Load:
    """What a worker calls; where `die_once` isn't there yet, it is made, and the process killed."""

    folder: Path
    die_once: Path | None = None

    def __call__(self):
        if self.die_once is not None and not self.die_once.exists():
            self.die_once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return load_canvas(self.folder)


def load_canvas(folder: Path, scheduler: str = "dpmsolver++", steps: int = 4, batch_size: int = 4):
    """A denoiser with fixed weights, and what is stated."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = (
            UNet.build(TrainDenoiser(channels=(16, 32)), SPECS, (CHANNELS, WINDOW, WINDOW)).eval().requires_grad_(False)
        )
    process = Process("v_prediction", "cosine", 1000)
    nulls = Conditions(vector=torch.zeros(1, 2), map=torch.zeros(1, 2, WINDOW, WINDOW))
    predictor = Predictor(model, process, SPECS, Sample(guidance=2.0).scale_at)
    denoiser = WindowDenoiser(predictor, nulls, make_solver(scheduler, process, steps), batch_size, "cpu")
    return denoiser, CanvasInputs(folder)
