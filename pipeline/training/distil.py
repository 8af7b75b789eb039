"""Progressive distillation: a denoiser that takes half the steps, then half of those, with guidance inside.

Salimans & Ho 2022, "Progressive distillation for fast sampling of diffusion models", algorithm 2: the student's one DDIM
step is to end where two of its teacher's do. In the first round the teacher is guided (Meng et al. 2023), so that the
student needs one forward a step where its teacher needed one for each branch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from pipeline.conditions.bus import Conditions, ConditionSpec
from pipeline.config import TrainDenoiser
from pipeline.diffusion.guidance import Guidance
from pipeline.diffusion.solver import Solver, Step, make_solver
from pipeline.models.denoiser import denoise
from pipeline.training.loop import TrainingRun, on_device, train

Batches = Callable[[int, torch.Generator], tuple[torch.Tensor, Conditions]]


def distil(
    config: TrainDenoiser,
    model: torch.nn.Module,
    batches: Batches,
    nothing: Conditions,
    specs: tuple[ConditionSpec, ...],
    run: TrainingRun,
    log=None,
) -> None:
    """Distil `model` in place, a run of `run.steps` optimiser steps for each halving.

    Parameters
    ----------
    batches : (step, generator) to clean latents (b, c, h, w) and their conditions, some of them dropped.
    nothing : the conditions' nulls, one row.
    """
    steps, done = config.distil.teacher_steps, 0
    while steps > config.distil.steps:
        teacher = copy.deepcopy(model).eval().requires_grad_(False)
        scale = config.distil.scale if steps == config.distil.teacher_steps else _unguided
        target = Target(config, steps // 2, teacher, nothing, specs, scale)
        title, folder = f"{run.title}: {steps} to {steps // 2} steps", Path(run.checkpoints) / f"to-{steps // 2}"
        resumed = None if done else run.resume_from
        this = replace(run, title=title, checkpoints=folder, seed=run.seed + 1 + done, history=[], resume_from=resumed)
        average = train(model, _loss(target, model, batches), this, log and _after(log, done * run.steps))
        model.load_state_dict(average, strict=False)
        run.history += [(done * run.steps + step, numbers) for step, numbers in this.history]
        steps, done = steps // 2, done + 1


def _unguided(_: str) -> float:
    return 1.0


def _after(log, first: int):
    return lambda step, numbers: log(first + step, numbers)


def _loss(target: Target, model: torch.nn.Module, batches: Batches):
    def loss(step: int, generator: torch.Generator):
        clean, given = batches(step, generator)
        noise = torch.randn(clean.shape, generator=on_device(generator, clean.device), device=clean.device)
        places = torch.randint(0, target.steps, (len(clean),), generator=generator)
        x, times, wanted = target(clean, noise, places, given)
        error = (denoise(model, x, times, given) - wanted).square().mean()
        return error, {"mse": error.detach()}

    return loss


@dataclass(frozen=True)
class Target:
    """What a student of `steps` steps should predict, by two steps of its teacher."""

    config: TrainDenoiser
    steps: int
    teacher: torch.nn.Module
    nothing: Conditions
    specs: tuple[ConditionSpec, ...]
    scale: Callable[[str], float]

    @torch.no_grad()
    def __call__(self, clean: torch.Tensor, noise: torch.Tensor, places: torch.Tensor, given: Conditions):
        """The noisy latents at the student's steps `places` (b,), their timesteps, and the prediction that is wanted."""
        places = places.to(clean.device)
        nothing = self.nothing
        if given.map is not None:  # of a window, where batches are
            nothing = replace(nothing, map=nothing.map[:, :, : given.map.shape[2], : given.map.shape[3]])
        guidance = Guidance.of(given, nothing, self.specs, self.scale)
        step = self._solver(self.steps).at(places)
        x = end = step.noised(clean, noise)
        for half in (2 * places, 2 * places + 1):
            end = self._teach(end, self._solver(2 * self.steps).at(half), guidance)
        a, b = step.first
        return x, step.timestep, step.wanted(x, (end - a * x) / b, self.config.prediction)

    def _teach(self, x: torch.Tensor, step: Step, guidance: Guidance) -> torch.Tensor:
        times = step.timestep.repeat(len(guidance.coefficients))
        predicted = guidance.predict_at(self.teacher, x, times)
        return step.next(x, step.clean(x, predicted, self.config.prediction))

    def _solver(self, steps: int) -> Solver:
        config = self.config
        return _ddim(config.prediction, config.schedule, config.train_timesteps, steps)


@lru_cache(maxsize=2)
def _ddim(prediction: str, schedule: str, train_timesteps: int, steps: int) -> Solver:
    """Read off once, not at every step of the training."""
    return make_solver("ddim", prediction=prediction, schedule=schedule, train_timesteps=train_timesteps, steps=steps)
