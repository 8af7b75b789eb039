"""Tiles that a loaded model makes before it learns others, so that it stays able to make them (Ruiz et al. 2023, DreamBooth)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from histoloom.backbones.backbone import Backbone
from histoloom.conditions.batch import Conditions, cat, only
from histoloom.conditions.encode import batch, null
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.data.mapped import RowArrays
from histoloom.data.seeds import item_seed
from histoloom.process.noise import latent_noise
from histoloom.process.predictor import Given, Predictor
from histoloom.process.process import Process
from histoloom.process.sampler import pure, sample
from histoloom.process.solver import make_solver
from histoloom.progress import track
from histoloom.training.run import TrainingRun, epoch_order

_BATCH = 16
Batches = Callable[[int, torch.Generator], tuple[torch.Tensor, Conditions]]


@dataclass(frozen=True)
class PriorTiles:
    """data : (n, c, ...). given : their conditions, n rows; what the few tiles are known by is null."""

    data: torch.Tensor
    given: Conditions

    def beside(self, batches: Batches, seed: int) -> Batches:
        """Batches with as many prior tiles behind their own rows."""

        def joined(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Conditions]:
            clean, given = batches(step, generator)
            rows = epoch_order(item_seed(seed, "prior") % 2**31, len(self.data), len(clean), step).to(clean.device)
            own = self.given.each(lambda values: values[rows])
            return torch.cat([clean, self.data[rows]]), cat([given, own])

        return joined


def make_prior(
    config: TrainDenoiser,
    model: Backbone,
    arrays: RowArrays,
    specs: tuple[ConditionSpec, ...],
    bound: float | None,
    run: TrainingRun,
) -> PriorTiles:
    """What the model makes before it is trained: the same on every start, so that a run that was broken goes on alike.

    Parameters
    ----------
    model : as it was loaded. What is new in it has no effect yet.
    bound : of the data, as its target has it.
    """
    prior, process = config.prior, Process.of(config)
    assert prior is not None, "params state it"
    names = {spec.name for spec in specs} - {*prior.leave_out}
    predictor = Predictor(model, process, specs, lambda _: lambda _: 1.0, bound)
    solver, nulls = make_solver("ddim", process, prior.steps), null(arrays, specs)
    shape, made, told = arrays["data"].shape[2:], [], []
    model.eval()
    starts = range(0, prior.tiles, _BATCH)
    for start in track(starts, "train_denoiser: its own tiles", len(starts)):
        numbers = np.arange(start, min(start + _BATCH, prior.tiles))
        given = only(batch(arrays, specs, numbers % len(arrays["data"])), nulls, specs, names)
        seeds = [item_seed(run.seed, f"prior/{number}") for number in numbers]
        noise = torch.from_numpy(latent_noise(seeds, shape)).to(run.device)
        own = Given(given.to(run.device), nulls.to(run.device))
        made.append(sample(predictor, solver, pure(solver, noise), own).clone())
        told.append(given.to(run.device))
    model.train()
    return PriorTiles(torch.cat(made), cat(told))
