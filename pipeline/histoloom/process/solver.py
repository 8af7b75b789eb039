"""Solvers as numbers: a step as a sum of what x was, what is predicted of the data, and what was predicted before.

All solvers here step every pixel alike. With x0 the data that is predicted, and x0', x0'' those of the two steps before,

    x_next = a x + b x0 + c x0' + d x0''

DDIM and Euler read x0 alone, DPM-Solver++ (2M) reads one before it, and UniPC two. The numbers are read off diffusers' own
schedulers. So a canvas can be stepped piece by piece, in any order and on any machine, and its history moves with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, get_args

import torch

from histoloom.config.base import Scheduler
from histoloom.process.process import Process, Scales

_HISTORY: dict[Scheduler, int] = {"ddim": 0, "euler": 0, "dpmsolver++": 1, "unipc": 2}


@dataclass(frozen=True)
class Step:
    """One step of a solver.

    timestep : of the process, what the network is told.
    scale : the solver's own x, times this, is x_t. Euler's x has unit signal, not unit variance.
    weights : (a, b), (a, b, c) and so on, by how many predictions before this one are known.
    back : what the stepped x is multiplied by, and the deviation of the noise that is added to it then; or None. So x is at this
        step's level again (`Solver.repeated`), or loses none of its noise (`Solver.ancestral`).
    """

    timestep: int
    scales: Scales[float]
    scale: float
    weights: tuple[tuple[float, ...], ...]
    back: tuple[float, float] | None = None

    def pure(self, noise):
        """The solver's x where there is noise alone."""
        return noise * (1.0 if self.scale == 1 else self.scales.sigma / self.scale)

    def noised(self, x0, noise):
        """The solver's x of data with this noise."""
        return (self.scales.alpha * x0 + self.scales.sigma * noise) / self.scale

    def next(self, x, x0, before: Sequence = ()):
        """The solver's x one step on; `before` holds the predictions of the steps before, the last one first."""
        a, b, *others = self.weights[len(before)]
        out = a * x + b * x0
        for weight, past in zip(others, before):
            out = out + weight * past
        return out


@dataclass(frozen=True)
class Solver:
    """All steps of a run, from noise to data.

    history : how many predictions before the newest are read.
    """

    steps: tuple[Step, ...]
    history: int

    def begin(self, strength: float) -> int:
        """The step at which a run begins that keeps 1 - `strength` of an image; 1 is pure noise."""
        return min(len(self.steps) - 1, round((1 - strength) * len(self.steps)))

    def known(self, index: int, begin: int = 0) -> int:
        """How many predictions before a step hold at it: none at a run's first step, and none from before noise was added."""
        count = 0
        while count < self.history and index - count > begin and self.steps[index - count - 1].back is None:
            count += 1
        return count

    def repeated(self, rounds: int) -> Solver:
        """Every step but the last taken `rounds` times, noise added back in between (Lugmayr et al. 2022, RePaint: jumps of one
        step), so that what is made can agree with what is kept beside it."""
        out = []
        for step, following in zip(self.steps, self.steps[1:]):
            less = step.scales.alpha / following.scales.alpha
            more = max(step.scales.sigma**2 - (less * following.scales.sigma) ** 2, 0.0) ** 0.5
            kept, fresh = less * following.scale / step.scale, step.back[1] if step.back else 0.0
            back = kept, math.hypot(kept * fresh, more / step.scale)
            out += [replace(step, back=back)] * (rounds - 1) + [step]
        return replace(self, steps=(*out, self.steps[-1]))

    def backwards(self, process: Process, begin: int = 0) -> Solver:
        """From data to the noise that gives it, over the steps from `begin` on, the last first (Song et al. 2021, eq. 14; Su et al. 2023,
        dual diffusion bridges).

        The data counts as being at time 0. At each step the network is told the time of what it sees. To tell it the time that it steps
        to, as some do, brings data back less well. x has unit variance throughout, whatever the solver's own scale.
        """
        out, time = [], 0
        for step in reversed(self.steps[begin:]):
            now, then = process.scales(time), step.scales
            kept = then.sigma / now.sigma
            out.append(Step(time, now, 1.0, ((kept, then.alpha - kept * now.alpha),)))
            time = step.timestep
        return Solver(tuple(out), 0)

    def ancestral(self, eta: float) -> Solver:
        """DDIM with fresh noise in place of some of its own at every step but the last (Song et al. 2021, eq. 12 and 16): none at
        eta 0, as much as ancestral sampling draws at 1 (Ho et al. 2020, the smaller variance)."""
        if not eta:
            return self
        out = []
        for step, following in zip(self.steps, self.steps[1:]):
            now, then = step.scales, following.scales
            fresh = eta * then.sigma / now.sigma * max(1 - (now.alpha / then.alpha) ** 2, 0.0) ** 0.5
            own = max(then.sigma**2 - fresh**2, 0.0) ** 0.5 / now.sigma
            out.append(replace(step, weights=((own, then.alpha - now.alpha * own),), back=(1.0, fresh)))
        return replace(self, steps=(*out, self.steps[-1]))


def jump(process: Process, strength: float) -> Solver:
    """One step alone, from the time at which noise is this far on its way to the data that is predicted there (Hu et al. 2022)."""
    time = max(round(strength * process.train_timesteps) - 1, 0)
    return Solver((Step(time, process.scales(time), 1.0, ((0.0, 1.0),)),), 0)


@lru_cache(maxsize=8)
def make_solver(name: Scheduler, process: Process, steps: int) -> Solver:
    """Read a solver off diffusers' scheduler.

    It starts at the last training timestep ('trailing', Lin et al. 2024), and draws no noise of its own (`Solver.ancestral` does).
    """
    scheduler = partial(_scheduler, name, process, steps)
    found = []
    for index, time in enumerate(int(t) for t in scheduler().timesteps):
        scales = process.scales(time)
        weights = tuple(_weights(scheduler(), index, known) for known in range(min(index, _HISTORY[name]) + 1))
        found.append(Step(time, scales, scales.alpha if name == "euler" else 1.0, weights))
    return Solver(tuple(found), _HISTORY[name])


def _scheduler(name: Scheduler, process: Process, steps: int):
    """A diffusers scheduler at the start of its run, which is given the data as the prediction."""
    import diffusers

    classes: dict[str, tuple[type, dict[str, Any]]] = {
        "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
        "euler": (diffusers.EulerDiscreteScheduler, {}),
        "dpmsolver++": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "solver_order": 2}),
        "unipc": (diffusers.UniPCMultistepScheduler, {}),
    }
    if name not in classes:
        raise ValueError(f"unknown scheduler {name!r}; there are {', '.join(get_args(Scheduler))}")
    kind, own = classes[name]
    made: Any = kind(
        trained_betas=process.betas.astype("float32"),
        prediction_type="sample",
        num_train_timesteps=process.train_timesteps,
        timestep_spacing="trailing",
        **own,
    )
    made.set_timesteps(steps)
    made.is_scale_input_called = True  # Euler warns else; scaling is Step.scale's
    return made


def _weights(scheduler, index: int, known: int) -> tuple[float, ...]:
    """a, b and those of `known` predictions before, from a run of the scheduler that ends with this step.

    The run begins `known` steps earlier, at a pixel that only its x reaches, and each prediction reaches a pixel of its own. UniPC
    mends its last step when it takes the next, so the run must be whole.
    """
    pixels = torch.eye(known + 2)[..., None, None]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(index - known)
    x = before = pixels[0]
    for number in range(known + 1):
        before = x
        x = scheduler.step(pixels[number + 1], scheduler.timesteps[index - known + number], x).prev_sample
    a = x[0] / before[0]
    others = (x - a * before)[1:].flatten().flip(0)
    return a.item(), *others.tolist()
