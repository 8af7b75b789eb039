"""One step of a canvas: windows cut from a region, predicted, put together, and every pixel stepped once.

The state of a canvas is the solver's x, and below it the clean latents of as many steps before as the solver reads, the last one
first: (channels x (1 + history), height, width) float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from histoloom.canvas.inputs import RegionInputs
from histoloom.canvas.window_layouts import Windows
from histoloom.conditions.batch import Conditions
from histoloom.data.pixel_box import PixelBox
from histoloom.process.predictor import Given, Predictor
from histoloom.process.solver import Solver


@dataclass(frozen=True)
class WindowDenoiser:
    """A trained denoiser as a canvas uses it.

    nulls : of all conditions, one row.
    batch_size : windows in a forward; the last batch is padded, so that bytes don't depend on how many there are.
    """

    predictor: Predictor
    nulls: Conditions
    solver: Solver
    batch_size: int
    device: str

    @torch.inference_mode()
    def clean(self, windows: torch.Tensor, index: int, given: Conditions) -> torch.Tensor:
        """The clean latents that are predicted of windows (n, c, w, w) of the solver's x at a step."""
        step = self.solver.steps[index]
        told = Given(given.to(self.device), self.nulls.to(self.device))
        return self.predictor.x0(windows * step.scale, step.timestep, told).float()


def step_region(
    region: torch.Tensor, windows: Windows, index: int, inputs: RegionInputs, denoiser: WindowDenoiser, known: int
) -> torch.Tensor:
    """Step a block. All that is large stays on the denoiser's device.

    Parameters
    ----------
    region : state of the block's region.
    index : of the step.
    inputs : what is stated about the region.
    known : how many clean latents of the steps before hold (`Solver.known`).

    Returns
    -------
    The block's own state one step on, (..., *the size of `windows.own`).
    """
    step, history, box = denoiser.solver.steps[index], denoiser.solver.history, windows.own
    inputs = inputs.to(denoiser.device)
    x, *before = region.chunk(1 + history)
    own = np.s_[:, box.top : box.bottom, box.left : box.right]
    clean = _cleaned(x, windows, index, inputs, denoiser)
    if not inputs.free.all():
        free = torch.from_numpy(inputs.free[own[1:]]).to(denoiser.device, non_blocking=True)
        clean = torch.where(free, clean, inputs.fixed[own])
    past = [values[own] for values in before]
    stepped = step.next(x[own], clean, past[:known])
    return torch.cat([stepped, clean, *past][: 1 + history])


def _cleaned(
    x: torch.Tensor, windows: Windows, index: int, inputs: RegionInputs, denoiser: WindowDenoiser
) -> torch.Tensor:
    """The clean latents of a block, predicted by the windows that have something free to make."""
    side, weights = windows.weight.shape[1], torch.from_numpy(windows.weight).to(x.device, non_blocking=True)
    places = [np.s_[top : top + side, left : left + side] for top, left in windows.corners.tolist()]
    busy = [bool((weight > 0)[inputs.free[at]].any()) for weight, at in zip(windows.weight, places)]
    todo, count, whole = np.flatnonzero(busy), denoiser.batch_size, torch.zeros_like(x)
    for start in range(0, len(todo), count):
        numbers = todo[start : start + count]
        batch = np.resize(numbers, count)
        given = inputs.conditions(windows.corners[batch], side)
        made = denoiser.clean(torch.stack([x[:, *places[number]] for number in batch]), index, given)
        for number, values in zip(numbers, made):
            whole[:, *places[number]] += weights[number] * values
    return _folded(whole, windows.own)


def _folded(whole: torch.Tensor, own: PixelBox[int]) -> torch.Tensor:
    """A block of what was put together over its region: where windows reach over the block's end, they go on at its start."""
    if own.top or own.left:  # nothing but a halo lies around it
        return whole[:, own.top : own.bottom, own.left : own.right]
    beyond = whole[:, own.height :]
    whole = whole[:, : own.height]
    whole[:, : beyond.shape[1]] += beyond
    beyond = whole[..., own.width :]
    whole = whole[..., : own.width]
    whole[..., : beyond.shape[2]] += beyond
    return whole
