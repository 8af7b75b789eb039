"""One step of a canvas: windows cut from a region, predicted, put together, and every pixel stepped once.

The state of a canvas is the solver's x, and below it the clean latents of the step before where the solver has a
history; (channels or twice as many, height, width) float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from histoloom.canvas.window_layouts import Windows
from histoloom.conditions.batch import Conditions
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.process.guidance import Guidance
from histoloom.process.solver import Solver


class Around(Protocol):
    """What is stated about a region (height, width) of a canvas.

    free : bool, the pixels that are to be made.
    fixed : (channels, height, width) float32, the clean latents of the others, which they keep.
    """

    free: np.ndarray
    fixed: np.ndarray

    def conditions(self, corners: np.ndarray, window: int) -> Conditions:
        """The conditions of windows, a row each."""
        ...


@dataclass(frozen=True)
class Denoiser:
    """A trained denoiser as a canvas uses it.

    nothing : the nulls of all conditions, one row.
    scale_at : share of the training timesteps to (condition to guidance scale).
    batch_size : windows in a forward; the last batch is padded, so that bytes don't depend on how many there are.
    """

    model: torch.nn.Module
    specs: tuple[ConditionSpec, ...]
    nothing: Conditions
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
        guidance = Guidance.of(given.to(device), self.nothing.to(device), self.specs, scale)
        time = torch.tensor(step.timestep, device=device)
        predicted = guidance.predict(self.model, x * step.scale, time)
        return step.clean(x, predicted, self.solver.prediction).float().cpu().numpy()


def step_region(
    region: np.ndarray, windows: Windows, inset: int, size: tuple[int, int], index: int, first: bool, around: Around,
    denoiser: Denoiser,
) -> np.ndarray:  # fmt: skip
    """Step a block.

    Parameters
    ----------
    region : state of the block's region.
    inset, size : where in the region the pixels begin that are stepped, and their (height, width).
    index : of the step.
    first : whether there is no history: at a run's first step, and where noise was added back.

    Returns
    -------
    The block's state one step on, (..., *size).
    """
    step, history = denoiser.solver.steps[index], denoiser.solver.history
    channels = len(region) // 2 if history else len(region)
    clean = _cleaned(region[:channels], windows, inset, size, index, around, denoiser)
    own = (slice(None), slice(inset, inset + size[0]), slice(inset, inset + size[1]))
    kept = ~around.free[own[1:]]
    clean[:, kept] = around.fixed[own][:, kept]
    before = region[channels:][own] if history and not first else None
    stepped = step.next(region[:channels][own], clean, before).astype(np.float32)
    return np.concatenate([stepped, clean]) if history else stepped


def _cleaned(
    x: np.ndarray, windows: Windows, inset: int, size: tuple[int, int], index: int, around: Around, denoiser: Denoiser
) -> np.ndarray:
    """The clean latents of a block, (c, *size), predicted by the windows that have something free to make."""
    side = windows.weight.shape[1]
    boxes = [np.s_[top : top + side, left : left + side] for top, left in windows.corners]
    busy = np.array([bool((weight > 0)[around.free[box]].any()) for weight, box in zip(windows.weight, boxes)])
    out = np.zeros((len(x), *size), np.float32)

    def add(number: int, values: np.ndarray) -> None:
        rows, columns = ((corner - inset + np.arange(side)) % n for corner, n in zip(windows.corners[number], size))
        out[np.ix_(range(len(out)), rows, columns)] += windows.weight[number] * values

    todo, count = np.flatnonzero(busy), denoiser.batch_size
    for start in range(0, len(todo), count):
        batch = np.resize(todo[start : start + count], count)
        given = around.conditions(windows.corners[batch], side)
        made = denoiser.clean(np.stack([x[:, *boxes[number]] for number in batch]), index, given)
        for number, values in zip(todo[start : start + count], made):
            add(number, values)
    return out
