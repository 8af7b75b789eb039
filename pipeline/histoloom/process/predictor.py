"""The guided denoiser: what is predicted of the data, whoever asks: the tile sampler, a canvas, or a student in distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import torch

from histoloom.backbones.backbone import Forward
from histoloom.conditions.batch import Conditions, cat, only
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.process.guidance import Branch, ScaleAt, branches
from histoloom.process.process import Process, Scales

Branches = tuple[Branch, ...]
Gradient = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""x_t (b, c, ...), its times (b,), and what its rows are to agree with (b, d), to the gradient of their agreement with respect to x_t."""


@dataclass(frozen=True)
class Push:
    """An agreement's gradient, and how strongly it pushes what is predicted."""

    gradient: Gradient
    strength: float


@dataclass(frozen=True)
class Given:
    """What the rows of a batch are given.

    conditions : b rows. nulls : one row, which stands for "not given".
    wanted : (b, d) for each push, what they are to agree with.
    """

    conditions: Conditions
    nulls: Conditions
    wanted: Mapping[str, torch.Tensor] = field(default_factory=dict)
    _joined: dict[Branches, Conditions] = field(default_factory=dict, repr=False, compare=False)

    def joined(self, of: Branches, specs: tuple[ConditionSpec, ...]) -> Conditions:
        """The conditions of each branch's rows, branch after branch; joined once for all steps that take the same branches."""
        if of not in self._joined:
            self._joined[of] = cat([only(self.conditions, self.nulls, specs, branch.names) for branch in of])
        return self._joined[of]

    def rows(self, numbers: torch.Tensor) -> Given:
        own = itemgetter(numbers)
        return Given(self.conditions.each(own), self.nulls, {name: own(values) for name, values in self.wanted.items()})


@dataclass(frozen=True)
class Predictor:
    """A trained network with its guidance.

    scale_at : how the conditions are guided at each level of noise.
    bound : what is predicted of the data is clipped to [-bound, bound], as pictures' pixels are (Ho et al. 2020); None for no bound.
    pushes : by condition, beside guidance.
    """

    network: Forward
    process: Process
    specs: tuple[ConditionSpec, ...]
    scale_at: ScaleAt
    bound: float | None = None
    pushes: Mapping[str, Push] = field(default_factory=dict)

    def x0(self, noisy: torch.Tensor, times: int | Sequence[int], given: Given) -> torch.Tensor:
        """The data that is predicted of x_t (b, c, h, w).

        Parameters
        ----------
        times : one time for all rows, or one for each.
        """
        if isinstance(times, int):
            at = torch.tensor(times, device=noisy.device).expand(len(noisy))
            predicted = self._guided(noisy, at, given, self.branches(times))
            return self._bounded(self._pushed(noisy, at, predicted, self.process.scales(times), given))
        at, predicted = torch.tensor(times, device=noisy.device), torch.empty_like(noisy)
        of_rows = [self.branches(time) for time in times]
        for alike in dict.fromkeys(of_rows):
            rows = torch.tensor([row for row, own in enumerate(of_rows) if own == alike], device=noisy.device)
            predicted[rows] = self._guided(noisy[rows], at[rows], given.rows(rows), alike)
        return self._bounded(self._pushed(noisy, at, predicted, self.process.scales_of(at, noisy.ndim), given))

    def _pushed(
        self, noisy: torch.Tensor, times: torch.Tensor, predicted: torch.Tensor, scales: Scales, given: Given
    ) -> torch.Tensor:
        """The data, whose noise eps is taken as eps - sigma strength gradient (Dhariwal & Nichol 2021, algorithm 2)."""
        x0 = self.process.x0(noisy, predicted, scales)
        for name, push in self.pushes.items():
            if (wanted := given.wanted.get(name)) is not None:
                x0 = x0 + scales.sigma**2 / scales.alpha * push.strength * push.gradient(noisy, times, wanted)
        return x0

    def _bounded(self, x0: torch.Tensor) -> torch.Tensor:
        return x0 if self.bound is None else x0.clamp(-self.bound, self.bound)

    def branches(self, time: int) -> Branches:
        """What guidance needs at a time."""
        return branches(self.specs, self.scale_at(self.process.level(time)))

    def _guided(self, noisy: torch.Tensor, times: torch.Tensor, given: Given, of: Branches) -> torch.Tensor:
        """The guided prediction, in one forward of all branches."""
        conditions, count = given.joined(of, self.specs), len(of)
        rows = noisy.repeat(count, *(1,) * (noisy.ndim - 1))
        parts = self.network(rows, times.repeat(count), conditions).chunk(count)
        first, *others = (branch.coefficient * part for branch, part in zip(of, parts))
        return sum(others, first)
