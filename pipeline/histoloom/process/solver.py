"""Solvers as numbers: a step as a sum of what a pixel was, what is predicted of it and what was predicted before.

diffusers' DDIM, Euler and DPM-Solver++ (2M) step every pixel alike: with x0 the clean latent that the prediction implies,

    x_next = a x + b x0 + c x0_before

The numbers are read off diffusers' own schedulers, so that a canvas can be stepped piece by piece, in any order and on
any machine, and its history can be moved with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch

from histoloom.config.denoiser_record import Prediction, Schedule
from histoloom.errors import HistoloomError
from histoloom.process.sampler import make_scheduler
from histoloom.process.schedules import betas

ELEMENTWISE = ("ddim", "euler", "dpmsolver++")


N = TypeVar("N", float, torch.Tensor)


@dataclass(frozen=True)
class Step(Generic[N]):
    """One step of a solver. A `Step[float]` is of all rows; a `Step[torch.Tensor]` has a step for each row of a batch.

    timestep : of the training schedule, what the denoiser is told.
    alpha, sigma : a latent x0 with noise n is alpha x0 + sigma n at this step, for the denoiser.
    scale : the solver's own x, times this, is what the denoiser reads (Euler's has unit signal, not unit variance).
    first : a and b where there is no history.
    later : a, b and c where there is.
    back : what the stepped x is multiplied by, and noise that is added to it, to be at this step's level again; or None.
    """

    timestep: N
    alpha: N
    sigma: N
    scale: N
    first: tuple[N, N]
    later: tuple[N, N, N]
    back: tuple[float, float] | None = None

    def clean(self, x, predicted, prediction: Prediction):
        """The x0 that a prediction implies, for arrays or tensors of the solver's x."""
        if prediction == "sample":
            return predicted
        noisy = x * self.scale
        if prediction == "epsilon":
            return (noisy - self.sigma * predicted) / self.alpha
        return self.alpha * noisy - self.sigma * predicted

    def wanted(self, x, clean, prediction: Prediction):
        """The prediction that implies this x0: `clean` the other way round."""
        if prediction == "sample":
            return clean
        noisy = x * self.scale
        noise = (noisy - self.alpha * clean) / self.sigma
        return noise if prediction == "epsilon" else self.alpha * noise - self.sigma * clean

    def noised(self, clean, noise):
        """The solver's x of a clean latent with this noise."""
        return (self.alpha * clean + self.sigma * noise) / self.scale

    def next(self, x, clean, before=None):
        """The solver's x one step on; `before` is the x0 of the step before, or None at the first."""
        if before is None:
            return self.first[0] * x + self.first[1] * clean
        return self.later[0] * x + self.later[1] * clean + self.later[2] * before


@dataclass(frozen=True)
class Solver:
    """All steps of a run, from noise to the clean latent.

    history : whether the x0 of the step before is read, so that a canvas must keep it.
    train_timesteps : of the training schedule.
    """

    steps: tuple[Step[float], ...]
    prediction: Prediction
    history: bool
    train_timesteps: int

    def at(self, places: torch.Tensor) -> Step[torch.Tensor]:
        """The steps at `places` (b,) as one, its numbers (b, 1, 1, 1), its timestep (b,); without history."""
        rows = [(s.alpha, s.sigma, s.scale, *s.first) for s in self.steps]
        table = torch.tensor(rows, dtype=torch.float32, device=places.device)[places]
        alpha, sigma, scale, a, b = table[..., None, None, None].unbind(1)
        times = torch.tensor([s.timestep for s in self.steps], device=places.device)[places]
        return Step(times, alpha, sigma, scale, (a, b), (a, b, torch.zeros_like(a)))

    def begin(self, strength: float) -> int:
        """The step at which a run begins that keeps 1 - `strength` of an image; 1 is pure noise."""
        return min(len(self.steps) - 1, round((1 - strength) * len(self.steps)))

    def repeated(self, rounds: int) -> Solver:
        """Every step but the last taken `rounds` times, noise added back in between (Lugmayr et al. 2022, RePaint: jumps of one
        step), so that what is made can agree with what is kept beside it."""
        out = []
        for step, following in zip(self.steps, self.steps[1:]):
            less = step.alpha / following.alpha
            more = max(step.sigma**2 - (less * following.sigma) ** 2, 0.0) ** 0.5
            back = less * following.scale / step.scale, more / step.scale
            out += [replace(step, back=back)] * (rounds - 1) + [step]
        return replace(self, steps=(*out, self.steps[-1]))


def make_solver(name: str, *, prediction: Prediction, schedule: Schedule, train_timesteps: int, steps: int) -> Solver:
    """Read a solver off diffusers' scheduler.

    Raises
    ------
    HistoloomError
        for a scheduler whose steps are not elementwise in one prediction and the one before.
    """
    if name not in ELEMENTWISE:
        raise HistoloomError(
            f"A canvas can't be stepped by '{name}': it keeps a history that isn't carried over. "
            f"Use one of {', '.join(ELEMENTWISE)}."
        )

    def scheduler():
        made = make_scheduler(name, prediction="sample", schedule=schedule, train_timesteps=train_timesteps)
        made.set_timesteps(steps)
        return made

    times = [int(t) for t in scheduler().timesteps]
    bars = np.cumprod(1 - betas(schedule, train_timesteps))[times]
    found = []
    for index, (time, bar) in enumerate(zip(times, bars)):
        scale = bar**0.5 if name == "euler" else 1.0
        first = _probe(scheduler(), index, None)
        later = _probe(scheduler(), index, index - 1) if index else first
        found.append(Step(time, float(bar**0.5), float((1 - bar) ** 0.5), float(scale), first[:2], later))
    return Solver(tuple(found), prediction, any(step.later[2] for step in found), train_timesteps)


def _probe(scheduler, index: int, before: int | None) -> tuple[float, float, float]:
    """a, b and c of a step, from one pixel each for x, x0 and the x0 before."""
    x, clean, past = torch.eye(3)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index if before is None else before)
    scheduler.is_scale_input_called = True  # Euler warns else; scaling is Step.scale's
    if before is not None:
        scheduler.step(past, scheduler.timesteps[before], torch.zeros(3))
    return tuple(scheduler.step(clean, scheduler.timesteps[index], x).prev_sample.tolist())
