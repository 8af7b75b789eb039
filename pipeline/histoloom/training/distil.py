"""Progressive distillation: a denoiser that takes half the steps, then half of those, with guidance inside.

Salimans & Ho 2022, "Progressive distillation for fast sampling of diffusion models", algorithm 2: the student's one DDIM
step is to end where two of its teacher's do. In the first round the teacher is guided (Meng et al. 2023), so that the
student needs one forward a step where its teacher needed one for each branch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import itemgetter
from pathlib import Path

import torch

from histoloom.backbones.denoiser import denoise
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.process.guidance import Guidance
from histoloom.process.loss_weights import Prediction
from histoloom.process.schedules import Schedule
from histoloom.process.solver import Solver, make_solver
from histoloom.training.loop import Log, LossFunction, Numbers, TrainingRun, on_device, train

Batches = Callable[[int, torch.Generator], tuple[torch.Tensor, Conditions]]


def distil(
    config: TrainDenoiser,
    model: torch.nn.Module,
    batches: Batches,
    nulls: Conditions,
    specs: tuple[ConditionSpec, ...],
    run: TrainingRun,
) -> None:
    """Distil `model` in place, a run of `run.steps` optimiser steps for each halving.

    Parameters
    ----------
    batches : (step, generator) to clean latents (b, c, h, w) and their conditions, some of them dropped.
    nulls : of the conditions, one row.
    """
    stated = config.distil
    assert stated is not None, "params say how far to distil"
    steps, done = stated.teacher_steps, 0
    while steps > stated.steps:
        teacher = copy.deepcopy(model).eval().requires_grad_(False)
        scale_at = stated.scale_at if steps == stated.teacher_steps else _unguided
        target = Target(config, steps // 2, teacher, nulls, specs, scale_at)
        title, folder = f"{run.title}: {steps} to {steps // 2} steps", Path(run.checkpoints) / f"to-{steps // 2}"
        resumed = None if done else run.resume_from
        log = run.log and _after(run.log, done * run.steps)
        this = replace(
            run, title=title, checkpoints=folder, seed=run.seed + 1 + done, history=[], resume_from=resumed, log=log
        )
        average = train(model, _loss(target, model, batches), this)
        model.load_state_dict(average or {}, strict=False)
        run.history += [(done * run.steps + step, numbers) for step, numbers in this.history]
        steps, done = steps // 2, done + 1


def _unguided(_: float) -> Callable[[str], float]:
    return lambda _: 1.0


def _after(log: Log, first: int) -> Log:
    return lambda step, numbers: log(first + step, numbers)


def _loss(target: Target, model: torch.nn.Module, batches: Batches) -> LossFunction:
    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        clean, given = batches(step, generator)
        noise = torch.randn(clean.shape, generator=on_device(generator, clean.device), device=clean.device)
        places = torch.randint(0, target.steps, (len(clean),), generator=generator)
        x, times, wanted = target(clean, noise, places, given)
        error = (denoise(model, x, times, given) - wanted).square().mean()
        return error, {"mse": error.detach()}

    return loss


@dataclass(frozen=True)
class Target:
    """What a student of `steps` steps should predict, by two steps of its teacher.

    scale_at : fraction of the training timesteps to (condition to the teacher's guidance scale).
    """

    config: TrainDenoiser
    steps: int
    teacher: torch.nn.Module
    nulls: Conditions
    specs: tuple[ConditionSpec, ...]
    scale_at: Callable[[float], Callable[[str], float]]

    @torch.no_grad()
    def __call__(
        self, clean: torch.Tensor, noise: torch.Tensor, places: torch.Tensor, given: Conditions
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The noisy latents at the student's steps `places` (b,), their timesteps, and the prediction that is wanted."""
        step = self._solver(self.steps).at(places.to(clean.device))
        x = end = step.noised(clean, noise)
        for half in (2 * places, 2 * places + 1):
            end = self.taught(end, half, given)
        a, b = step.first
        return x, step.timestep, step.wanted(x, (end - a * x) / b, self.config.prediction)

    def taught(self, x: torch.Tensor, places: torch.Tensor, given: Conditions) -> torch.Tensor:
        """Each row one step of the teacher on, from the step that it is at."""
        solver, predicted = self._solver(2 * self.steps), torch.empty_like(x)
        step = solver.at(places.to(x.device))
        for rows, guidance in self._guided(solver, places, given, x.device):
            times = step.timestep[rows].repeat(len(guidance.coefficients))
            predicted[rows] = guidance.predict_at(self.teacher, x[rows], times)
        return step.next(x, step.clean(x, predicted, self.config.prediction))

    def _guided(
        self, solver: Solver, places: torch.Tensor, given: Conditions, device: torch.device
    ) -> Iterator[tuple[torch.Tensor, Guidance]]:
        """The rows that are guided alike, and how."""
        names, nulls = [spec.name for spec in self.specs], self.nulls
        if given.map is not None:  # of a window, where batches are
            assert nulls.map is not None
            nulls = replace(nulls, map=nulls.map[:, :, : given.map.shape[2], : given.map.shape[3]])
        fractions = [solver.steps[place].timestep / solver.train_timesteps for place in places.tolist()]
        scales = [tuple(map(self.scale_at(fraction), names)) for fraction in fractions]
        for alike in sorted(set(scales)):
            rows = torch.tensor([row for row, own in enumerate(scales) if own == alike], device=device)
            part = given.each(itemgetter(rows))
            yield rows, Guidance.of(part, nulls, self.specs, dict(zip(names, alike)).__getitem__)

    def _solver(self, steps: int) -> Solver:
        config = self.config
        return _ddim(config.prediction, config.schedule, config.train_timesteps, steps)


@lru_cache(maxsize=2)
def _ddim(prediction: Prediction, schedule: Schedule, train_timesteps: int, steps: int) -> Solver:
    """Read off once, not at every step of the training."""
    return make_solver("ddim", prediction=prediction, schedule=schedule, train_timesteps=train_timesteps, steps=steps)
