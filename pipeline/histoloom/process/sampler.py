"""From noise to data."""

from __future__ import annotations

import torch

from histoloom.process.predictor import Given, Predictor
from histoloom.process.solver import Solver


@torch.inference_mode()
def sample(predictor: Predictor, solver: Solver, noise: torch.Tensor, given: Given) -> torch.Tensor:
    """Denoise a batch.

    Parameters
    ----------
    noise : (b, c, h, w) standard normal, on the network's device.
    given : its conditions, on the same device.

    Returns
    -------
    (b, c, h, w) of unit variance
    """
    x, before = solver.steps[0].pure(noise), list[torch.Tensor]()
    for step in solver.steps:
        x0 = predictor.x0(x * step.scale, step.timestep, given)
        x, before = step.next(x, x0, before), [x0, *before][: solver.history]
    return x
