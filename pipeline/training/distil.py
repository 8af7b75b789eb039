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

from pipeline.conditions.bus import Conditions, ConditionSpec
from pipeline.config import TrainDenoiser
from pipeline.diffusion.guidance import Guidance
from pipeline.diffusion.solver import Solver, make_solver
from pipeline.models.denoiser import denoise
from pipeline.training.loop import TrainingRun, train

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
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        places = torch.randint(0, target.steps, (len(clean),), generator=generator)
        x, times, wanted = target(clean, noise, places, given)
        error = (denoise(model, x, times, given) - wanted).square().mean()
        return error, {"mse": error.item()}

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
        coarse, fine = (_Numbers(self.config, count, clean.device) for count in (self.steps, 2 * self.steps))
        places = places.to(clean.device)
        guidance = Guidance.of(given, self.nothing, self.specs, self.scale)
        first, second = 2 * places, 2 * places + 1
        x = fine.alpha[first] * clean + fine.sigma[first] * noise
        middle = self._step(x, first, fine, guidance)
        end = self._step(middle, second, fine, guidance)
        wanted = (end - coarse.a[places] * x) / coarse.b[places]
        return x, coarse.times[places], self._as_predicted(x, wanted, coarse.alpha[places], coarse.sigma[places])

    def _step(self, x: torch.Tensor, places: torch.Tensor, numbers: _Numbers, guidance: Guidance) -> torch.Tensor:
        times = numbers.times[places].repeat(len(guidance.coefficients))
        predicted = guidance.predict_at(self.teacher, x, times)
        alpha, sigma = numbers.alpha[places], numbers.sigma[places]
        clean = {
            "sample": lambda: predicted,
            "epsilon": lambda: (x - sigma * predicted) / alpha,
            "v_prediction": lambda: alpha * x - sigma * predicted,
        }[self.config.prediction]()
        return numbers.a[places] * x + numbers.b[places] * clean

    def _as_predicted(self, x, clean, alpha, sigma) -> torch.Tensor:
        kind = self.config.prediction
        if kind == "sample":
            return clean
        noise = (x - alpha * clean) / sigma
        return noise if kind == "epsilon" else alpha * noise - sigma * clean


class _Numbers:
    """A DDIM run's numbers, (steps, 1, 1, 1) each; `times` (steps,)."""

    def __init__(self, config: TrainDenoiser, steps: int, device: torch.device):
        solver: Solver = make_solver(
            "ddim", prediction=config.prediction, schedule=config.schedule,
            train_timesteps=config.train_timesteps, steps=steps,
        )  # fmt: skip
        columns = [(s.alpha, s.sigma, *s.first) for s in solver.steps]
        table = torch.tensor(columns, dtype=torch.float32, device=device).view(steps, 4, 1, 1, 1)
        self.alpha, self.sigma, self.a, self.b = table.unbind(1)
        self.times = torch.tensor([s.timestep for s in solver.steps], device=device)
