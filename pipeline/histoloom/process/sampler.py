"""From noise to data, and from data back to the noise that gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from histoloom.process.predictor import Given, Predictor
from histoloom.process.solver import Solver

DrawNoise = Callable[[int], torch.Tensor]
"""A step's number to standard normal noise, shaped as the data."""


@dataclass(frozen=True)
class Kept:
    """What is known of the data, and stays.

    data : (b, c, ...). free : (b, 1, ...) bool, where data is made; elsewhere `data` takes the place of what is predicted.
    """

    data: torch.Tensor
    free: torch.Tensor


@torch.inference_mode()
def sample(
    predictor: Predictor,
    solver: Solver,
    start: torch.Tensor,
    given: Given,
    *,
    begin: int = 0,
    kept: Kept | None = None,
    noise: DrawNoise | None = None,
) -> torch.Tensor:
    """Denoise a batch.

    Parameters
    ----------
    start : the solver's x at step `begin`, on the network's device; `pure`, `partly` and `invert` give it.
    given : its conditions, on the same device.
    noise : needed by a solver that adds noise back.

    Returns
    -------
    (b, c, ...) of about unit variance
    """
    x, before = start, list[torch.Tensor]()
    for index, step in enumerate(solver.steps[begin:], begin):
        x0 = predictor.x0(x * step.scale, step.timestep, given)
        if kept is not None:
            x0 = torch.where(kept.free, x0, kept.data)
        known = solver.known(index, begin)
        x, before = step.next(x, x0, before[:known]), [x0, *before][: solver.history]
        if step.back is not None:
            assert noise is not None, "a solver that adds noise back needs some"
            x = step.back[0] * x + step.back[1] * noise(index)
    return x if kept is None else torch.where(kept.free, x, kept.data)


def pure(solver: Solver, noise: torch.Tensor) -> torch.Tensor:
    """Where a run begins that makes all of its data."""
    return solver.steps[0].pure(noise)


def partly(solver: Solver, begin: int, data: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Where a run begins that keeps some of the data (Meng et al. 2022, SDEdit)."""
    return solver.steps[begin].noised(data, noise)


def invert(predictor: Predictor, solver: Solver, begin: int, data: torch.Tensor, given: Given) -> torch.Tensor:
    """Where a run of DDIM or Euler begins that gives the data again under the same conditions (`Solver.backwards`)."""
    return sample(predictor, solver.backwards(predictor.process, begin), data, given) / solver.steps[begin].scale
