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
    def clean(self, windows: np.ndarray, index: int, given: Conditions) -> np.ndarray:
        """The clean latents that are predicted of windows (n, c, w, w) of the solver's x at a step."""
        step, device = self.solver.steps[index], self.device
        x = torch.from_numpy(windows).to(device)
        told = Given(given.to(device), self.nulls.to(device))
        return self.predictor.x0(x * step.scale, step.timestep, told).float().cpu().numpy()


def step_region(
    region: np.ndarray, windows: Windows, index: int, inputs: RegionInputs, denoiser: WindowDenoiser, known: int
) -> np.ndarray:
    """Step a block.

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
    x, *before = np.split(region, 1 + history)
    clean = _cleaned(x, windows, index, inputs, denoiser)
    own = np.s_[:, box.top : box.bottom, box.left : box.right]
    kept = ~inputs.free[own[1:]]
    clean[:, kept] = inputs.fixed[own][:, kept]
    past = [values[own] for values in before]
    stepped = step.next(x[own], clean, past[:known]).astype(np.float32)
    return np.concatenate([stepped, clean, *past][: 1 + history])


def _cleaned(x: np.ndarray, windows: Windows, index: int, inputs: RegionInputs, denoiser: WindowDenoiser) -> np.ndarray:
    """The clean latents of a block, predicted by the windows that have something free to make."""
    side, own = windows.weight.shape[1], windows.own
    places = [np.s_[top : top + side, left : left + side] for top, left in windows.corners]
    busy = np.array([bool((weight > 0)[inputs.free[at]].any()) for weight, at in zip(windows.weight, places)])
    out = np.zeros((len(x), own.height, own.width), np.float32)

    def add(number: int, values: np.ndarray) -> None:
        top, left = windows.corners[number]
        rows = (top - own.top + np.arange(side)) % own.height
        columns = (left - own.left + np.arange(side)) % own.width
        out[np.ix_(range(len(out)), rows, columns)] += windows.weight[number] * values

    todo, count = np.flatnonzero(busy), denoiser.batch_size
    for start in range(0, len(todo), count):
        batch = np.resize(todo[start : start + count], count)
        given = inputs.conditions(windows.corners[batch], side)
        made = denoiser.clean(np.stack([x[:, *places[number]] for number in batch]), index, given)
        for number, values in zip(todo[start : start + count], made):
            add(number, values)
    return out
