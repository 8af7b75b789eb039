"""A microbatch of a plan, run as its program says: the samples of its rows, and whatever a reduction asks of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional as F

from histoloom.conditions.batch import Conditions
from histoloom.config import Sample
from histoloom.config.program import Program
from histoloom.data.inputs import BLEND, FREE
from histoloom.data.seeds import item_seed
from histoloom.process.noise import latent_noise
from histoloom.process.predictor import Given, Push
from histoloom.process.sampler import Kept, invert, partly, pure, sample
from histoloom.process.solver import Solver, jump, make_solver
from histoloom.sampling.diffusion_model import DiffusionModel
from histoloom.targets.target import Raster

Arrays = dict[str, np.ndarray]
FROM_NOISE = Program()
ASKED = {"text": "caption", "label": "label"}
"""Conditions whose agreement can push, to the columns that say what is asked."""


@dataclass(frozen=True)
class Rows:
    """What the rows of a microbatch are made from.

    seeds : (b,) uint64, of each row's noise. given : their conditions. nulls : of all conditions, one row.
    inputs : arrays of the tiles that they begin from, (b, ...); where regions are remade, `free` (b, h, w), and `blend` (b, h, w) uint8 if
    pictures fade at their borders: 255 is new. Empty where they begin from noise.
    inputs_given : the conditions of those tiles, where they are inverted.
    asked : captions of text and labels of label, (b,) each, read where the agreement with them pushes what is made.
    """

    seeds: np.ndarray
    given: Conditions
    nulls: Conditions
    inputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    inputs_given: Conditions | None = None
    asked: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """The samples of a microbatch, drawn when they are asked for."""

    model: DiffusionModel
    config: Sample
    rows: Rows
    program: Program = FROM_NOISE

    @property
    def count(self) -> int:
        """Samples of each row; where each is a tile, the plan has a row for it."""
        return 1 if self.program.reduce.name == "each" else self.program.samples

    @cached_property
    def samples(self) -> list[Arrays]:
        """The arrays of each sample, (b, ...) by name."""
        return [self._whole(self.model.target.decode(self.data(number))) for number in range(self.count)]

    def data(self, number: int = 0) -> torch.Tensor:
        """What is diffused, of one sample of each row: (b, ...) of about unit variance, on the device."""
        start, solver = self.program.start, self._solver
        begin = solver.begin(start.strength)
        if start.source == "noise":
            x = pure(solver, self._noise(number))
        elif start.inverted:
            x = invert(self._predictor, solver, begin, self._clean, self._told(self.rows.inputs_given))
        elif start.noise == "own":
            x = partly(solver, begin, self._clean, torch.zeros_like(self._clean))
        else:
            x = partly(solver, begin, self._clean, self._noise(number))
        return sample(
            self._predictor,
            solver,
            x,
            self._told(self.rows.given),
            begin=begin,
            kept=self._kept,
            noise=lambda step: self._noise(number, f"back/{step}"),
        )

    def features(self, taps: Collection[str], level: float) -> dict[str, torch.Tensor]:
        """What modules of the network give of the tile, noised to a level between 0 and 1."""
        process, given = self.model.process, self.rows.given.to(self.model.device)
        time = min(round(level * process.train_timesteps), process.train_timesteps - 1)
        x = process.noised(self._clean, self._noise(0), process.scales(time))
        with torch.inference_mode():
            return self.model.network.features(x, torch.full((len(x),), time, device=x.device), given, taps)

    @cached_property
    def _predictor(self):
        predictor = self.model.predictor(self.config.scale_at)
        pushes: dict[str, Push] = {
            n: Push(self.model.agreement(n).gradient, s) for n, s in self.config.classifier_guidance.items()
        }
        return replace(predictor, pushes=pushes)

    @cached_property
    def _wanted(self) -> dict[str, torch.Tensor]:
        return {
            name: self.model.agreement(name).wanted(self.rows.asked[name]) for name in self.config.classifier_guidance
        }

    @cached_property
    def _solver(self) -> Solver:
        if self.program.start.jump:
            return jump(self.model.process, self.program.start.strength)
        solver = make_solver(self.config.scheduler, self.model.process, self.config.steps).ancestral(self.config.eta)
        rounds = self.program.remake.rounds
        return solver.repeated(rounds) if rounds > 1 else solver

    def _told(self, conditions: Conditions | None) -> Given:
        assert conditions is not None, "a tile that is inverted has conditions of its own"
        return Given(conditions.to(self.model.device), self.rows.nulls.to(self.model.device), self._wanted)

    def _noise(self, number: int, what: str = "") -> torch.Tensor:
        """Of a sample's start, or of something in its course; the first sample's is that of the row's own seed."""
        own = "/".join([*([f"sample/{number}"] if number else []), *([what] if what else [])])
        seeds = [item_seed(int(seed), own) for seed in self.rows.seeds] if own else self.rows.seeds
        return torch.from_numpy(latent_noise(seeds, self.model.record.training.shape)).to(self.model.device)

    @cached_property
    def _clean(self) -> torch.Tensor:
        """The data of the tiles that the rows begin from."""
        return self.model.target.encode(self.rows.inputs).to(self.model.device)

    @cached_property
    def _kept(self) -> Kept | None:
        """What of the data stays; a pixel of it is free where any of its own pixels is."""
        if FREE not in self.rows.inputs:
            return None
        factor = self.model.target.factor if isinstance(self.model.target, Raster) else 1
        free = torch.from_numpy(self.rows.inputs[FREE])[:, None].float().to(self.model.device)
        return Kept(self._clean, F.max_pool2d(free, factor) > 0)

    def _whole(self, made: Arrays) -> Arrays:
        """The arrays, with the tile's own pixels wherever it isn't made anew."""
        if FREE not in self.rows.inputs:
            return made
        inputs, free = self.rows.inputs, self.rows.inputs[FREE] > 0
        shares = dict.fromkeys(made, free) | ({"image": inputs[BLEND] / np.float32(255)} if BLEND in inputs else {})
        return {
            name: _blended(inputs[name], values, shares[name]) if name in inputs else values
            for name, values in made.items()
        }


def _blended(old: np.ndarray, new: np.ndarray, share: np.ndarray) -> np.ndarray:
    """The new values (b, h, w, ...) where `share` (b, h, w) is True; of a share from 0 to 1, that much of them."""
    share = share.reshape(*share.shape, *(1,) * (new.ndim - 3))
    if share.dtype == bool:
        return np.where(share, new, old)
    both = share * new + (1 - share) * old
    return (np.rint(both) if np.issubdtype(new.dtype, np.integer) else both).astype(new.dtype)
