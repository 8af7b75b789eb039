"""What a training is asked to do, and what is drawn at each of its steps.

Everything drawn at a step comes from a generator keyed by (seed, step), so the data order and the noise of step n are
the same whether or not the run was broken before it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

Numbers = dict[str, float | torch.Tensor]
LossFunction = Callable[[int, torch.Generator], tuple[torch.Tensor, Numbers]]
"""(step, generator) to the loss of the step's batch, and what else is to be logged by name."""
Log = Callable[[int, dict[str, float]], None]


@dataclass
class TrainingRun:
    """What a loop is asked to do.

    steps : optimiser steps in all, counted from the first run's start.
    learning_rate, warmup_steps : linear warm-up, then half a cosine down.
    ema_decay : decay of the average of the weights, or None for no average.
    checkpoints : folder for checkpoints; the newest there is resumed.
    resume_from : a checkpoint's folder that must be there, for a run that goes on from another.
    log : called as log(step, numbers) every ten steps, and again for the history of a resumed run.
    measure, patience : called at each checkpoint, and the less the better. After `patience` checkpoints that are no better than the best,
        training stops. The model is left as it was at the best.
    measured : what was measured, each with its step.
    processes, batch_size : how many compute it, as cluster.yaml says, and the rows of a step's batch that they divide among themselves.
        Without a batch it is this process alone.
    """

    title: str
    steps: int
    learning_rate: float
    seed: int
    checkpoints: Path
    checkpoint_every: int
    warmup_steps: int = 0
    ema_decay: float | None = None
    mixed_precision: str = "no"
    device: str = "cpu"
    weight_decay: float = 0.01
    resume_from: str | None = None
    log: Log | None = None
    history: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    measure: Callable[[], float] | None = None
    patience: int | None = None
    measured: list[tuple[int, float]] = field(default_factory=list)
    processes: int | str = 1
    batch_size: int | None = None

    def __getstate__(self) -> dict[str, object]:
        """What another process of the training needs: only the first logs and measures."""
        return {**vars(self), "log": None, "measure": None}

    @property
    def best(self) -> int | None:
        """The step at which the least was measured, the first of equal ones."""
        return min(self.measured, key=lambda at: at[1])[0] if self.measured else None

    @property
    def is_over(self) -> bool:
        """Whether as many checkpoints as `patience` says are no better than the best."""
        return self.patience is not None and sum(step > (self.best or 0) for step, _ in self.measured) >= self.patience


def step_generator(seed: int, step: int) -> torch.Generator:
    """The CPU generator of one training step."""
    key = hashlib.sha256(f"train/{seed}/{step}".encode()).digest()[:7]
    return torch.Generator().manual_seed(int.from_bytes(key, "little"))


def on_device(generator: torch.Generator, device: torch.device | str) -> torch.Generator:
    """A generator there that is keyed as this one was: itself on a CPU. A GPU's numbers are others than a CPU's."""
    place = torch.device(device)
    return generator if place.type == "cpu" else torch.Generator(place).manual_seed(generator.initial_seed())


def epoch_order(seed: int, count: int, batch_size: int, step: int) -> torch.Tensor:
    """Indices of the batch of a step: each epoch is a fresh permutation, and no epoch is cut short."""
    return epoch_slice(seed, count, range(step * batch_size, (step + 1) * batch_size))


def epoch_slice(seed: int, count: int, wanted: range) -> torch.Tensor:
    """These places of the endless order of `count` indices in which one epoch, a fresh permutation, follows another."""
    out = [torch.empty(0, dtype=torch.int64)]
    for epoch in range(wanted.start // count, (wanted.stop - 1) // count + 1) if wanted else ():
        order = torch.randperm(count, generator=step_generator(seed, -1 - epoch))
        low, high = max(wanted.start - epoch * count, 0), min(wanted.stop - epoch * count, count)
        out.append(order[low:high])
    return torch.cat(out)


def learning_rate_factor(step: int, warmup_steps: int, steps: int) -> float:
    """Fraction of the learning rate at a step: linear warm-up, then half a cosine down to a hundredth."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(steps - warmup_steps, 1)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
