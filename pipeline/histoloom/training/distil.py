"""Progressive distillation: a denoiser that takes half the steps, then half of those, with guidance inside.

Salimans & Ho 2022, "Progressive distillation for fast sampling of diffusion models", algorithm 2: the student's one DDIM
step is to end where two of its teacher's do. In the first round the teacher is guided (Meng et al. 2023), so that the
student needs one forward a step where its teacher needed one for each branch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from histoloom.backbones.backbone import Backbone
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.process.predictor import Given, Predictor
from histoloom.process.process import Process
from histoloom.process.solver import Solver, make_solver
from histoloom.registry import registered
from histoloom.training.loop import train
from histoloom.training.processes import own_rows
from histoloom.training.run import Log, LossFunction, Numbers, TrainingRun, on_device

Batches = Callable[[int, torch.Generator], tuple[torch.Tensor, Conditions]]


def distil(
    config: TrainDenoiser,
    model: Backbone,
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
        process, bound = Process.of(config), registered("target", config.target.name).bound
        lesson = Lesson(steps // 2, Predictor(teacher, process, specs, scale_at, bound), nulls)
        title, folder = f"{run.title}: {steps} to {steps // 2} steps", Path(run.checkpoints) / f"to-{steps // 2}"
        resumed = None if done else run.resume_from
        log = run.log and _after(run.log, done * run.steps)
        this = replace(
            run, title=title, checkpoints=folder, seed=run.seed + 1 + done, history=[], resume_from=resumed, log=log
        )
        average = train(model, _loss(lesson, model, batches), this)
        model.load_state_dict(average or {}, strict=False)
        run.history += [(done * run.steps + step, numbers) for step, numbers in this.history]
        steps, done = steps // 2, done + 1


def _unguided(_: float) -> Callable[[str], float]:
    return lambda _: 1.0


def _after(log: Log, first: int) -> Log:
    return lambda step, numbers: log(first + step, numbers)


def _loss(lesson: Lesson, model: Backbone, batches: Batches) -> LossFunction:
    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        clean, given = batches(step, generator)
        noise = torch.randn(clean.shape, generator=on_device(generator, clean.device), device=clean.device)
        places = torch.randint(0, lesson.steps, (len(clean),), generator=generator)
        mine = own_rows(len(clean))
        clean, given, noise, places = clean[mine], given.each(lambda rows: rows[mine]), noise[mine], places[mine]
        x, times, wanted = lesson(clean, noise, places, given)
        error = (model(x, times, given) - wanted).square().mean()
        return error, {"mse": error.detach()}

    return loss


@dataclass(frozen=True)
class Lesson:
    """What a student of `steps` steps should predict, by two steps of its teacher.

    teacher : with the guidance that the student is to have inside.
    nulls : of the conditions, one row.
    """

    steps: int
    teacher: Predictor
    nulls: Conditions

    @torch.no_grad()
    def __call__(
        self, clean: torch.Tensor, noise: torch.Tensor, places: torch.Tensor, given: Conditions
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The noisy latents at the student's steps `places` (b,), their timesteps, and the prediction that is wanted."""
        process, solver = self.teacher.process, self._solver(self.steps)
        times = torch.tensor(_timesteps(solver, places), device=clean.device)
        scales = process.scales_of(times, clean.ndim)
        x = end = process.noised(clean, noise, scales)
        for half in (2 * places, 2 * places + 1):
            end = self.taught(end, half, given)
        a, b = _first_weights(solver, places, clean)
        return x, times, process.predicted(x, (end - a * x) / b, scales)

    def taught(self, x: torch.Tensor, places: torch.Tensor, given: Conditions) -> torch.Tensor:
        """Each row one step of the teacher on, from the step that it is at."""
        solver, nulls = self._solver(2 * self.steps), self.nulls
        if given.map is not None:  # of a window, where batches are
            assert nulls.map is not None
            nulls = replace(nulls, map=nulls.map[:, :, : given.map.shape[2], : given.map.shape[3]])
        x0 = self.teacher.x0(x, _timesteps(solver, places), Given(given, nulls))
        a, b = _first_weights(solver, places, x)
        return a * x + b * x0

    def _solver(self, steps: int) -> Solver:
        return make_solver("ddim", self.teacher.process, steps)


def _timesteps(solver: Solver, places: torch.Tensor) -> list[int]:
    return [solver.steps[place].timestep for place in places.tolist()]


def _first_weights(solver: Solver, places: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """a and b of the steps at `places` (b,), each (b, 1, ...)."""
    rows = [solver.steps[place].weights[0] for place in places.tolist()]
    return torch.tensor(rows, device=like.device).view(-1, 2, *(1,) * (like.ndim - 1)).unbind(1)
