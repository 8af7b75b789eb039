"""One step of a canvas: windows cut from a region, predicted, put together, and every pixel stepped once.

The state of a canvas is the solver's x, and below it the clean latents of the step before where the solver has a
history; (channels or twice as many, height, width) float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from histoloom.canvas.inputs import RegionInputs
from histoloom.canvas.window_layouts import Windows
from histoloom.conditions.batch import Conditions
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.process.guidance import Guidance
from histoloom.process.solver import Solver


@dataclass(frozen=True)
class WindowDenoiser:
    """A trained denoiser as a canvas uses it.

    nulls : of all conditions, one row.
    scale_at : fraction of the training timesteps to (condition to guidance scale).
    batch_size : windows in a forward; the last batch is padded, so that bytes don't depend on how many there are.
    """

    model: torch.nn.Module
    specs: tuple[ConditionSpec, ...]
    nulls: Conditions
    scale_at: Callable[[float], Callable[[str], float]]
    solver: Solver
    batch_size: int
    device: str

    @torch.inference_mode()
    def clean(self, windows: np.ndarray, index: int, given: Conditions) -> np.ndarray:
        """The clean latents that are predicted of windows (n, c, w, w) of the solver's x at a step."""
        step, device = self.solver.steps[index], self.device
        x = torch.from_numpy(windows).to(device)
        scale = self.scale_at(step.timestep / self.solver.train_timesteps)
        guidance = Guidance.of(given.to(device), self.nulls.to(device), self.specs, scale)
        time = torch.tensor(step.timestep, device=device)
        predicted = guidance.predict(self.model, x * step.scale, time)
        return step.clean(x, predicted, self.solver.prediction).float().cpu().numpy()


def step_region(
    region: np.ndarray, windows: Windows, index: int, inputs: RegionInputs, denoiser: WindowDenoiser, *, first: bool
) -> np.ndarray:
    """Step a block.

    Parameters
    ----------
    region : state of the block's region, (channels or twice as many, height, width) float32.
    index : of the step.
    inputs : what is stated about the region.
    first : whether there is no history: at a run's first step, and where noise was added back.

    Returns
    -------
    The block's own state one step on, (..., *the size of `windows.own`).
    """
    step, history, box = denoiser.solver.steps[index], denoiser.solver.history, windows.own
    channels = len(region) // 2 if history else len(region)
    clean = _cleaned(region[:channels], windows, index, inputs, denoiser)
    own = np.s_[:, box.top : box.bottom, box.left : box.right]
    kept = ~inputs.free[own[1:]]
    clean[:, kept] = inputs.fixed[own][:, kept]
    before = region[channels:][own] if history and not first else None
    stepped = step.next(region[:channels][own], clean, before).astype(np.float32)
    return np.concatenate([stepped, clean]) if history else stepped


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
