"""Models that are run one after another on a part of a plan, each given what those before it made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from histoloom.conditions.batch import Conditions, augmented
from histoloom.conditions.encode import batch, null
from histoloom.config import Sample
from histoloom.config.channels import NOISE, read_channels
from histoloom.config.program import Program
from histoloom.data.inputs import BLEND, FREE, input_tiles
from histoloom.data.plan import planned_tiles
from histoloom.data.seeds import item_seed
from histoloom.process.noise import latent_noise
from histoloom.registry import registered
from histoloom.sampling.diffusion_model import DiffusionModel, load_diffusion_model
from histoloom.sampling.drawn import ASKED, FROM_NOISE, Arrays, Drawn, Rows


@dataclass(frozen=True)
class Link:
    """One model of a chain, and how it is run.

    name : among several; empty where there is one. models : the folder of its parts. sha256 : of these.
    """

    name: str
    models: Path
    sha256: str
    attention: str
    device: str
    config: Sample

    def load(self) -> DiffusionModel:
        return load_diffusion_model(self.models, self.sha256, self.attention, self.device, self.config.precision)


@dataclass
class PartRun:
    """A part of a plan, while the models of a chain are run on it.

    rows : of the part. plan : the plan's folder. size : rows in a microbatch; the last one is padded, then cut.
    classes : of masks, without the background.
    made : the arrays that models made so far, (n, ...) by name. conditions : those of them that are conditions as they are.
    """

    rows: pd.DataFrame
    plan: Path
    part: str
    size: int
    classes: tuple[str, ...] = ()
    made: Arrays = field(default_factory=dict)
    conditions: Arrays = field(default_factory=dict)

    def run(self, chain: Sequence[Link]) -> Iterator[Arrays]:
        """The arrays of each microbatch, as the last model makes them, beside what those before it made."""
        *before, last = chain
        for link in before:
            model, seeds = link.load(), [item_seed(int(seed), f"link/{link.name}") for seed in self.rows["seed"]]
            batches = [*self._batches(model, link.config, FROM_NOISE, np.array(seeds, np.uint64))]
            made = {name: np.concatenate([one[name] for _, one in batches]) for name in batches[0][1]}
            self.made |= made
            self.conditions |= model.target.conditions(made)
            if link.config.oversample:
                self._oversample(link.config.oversample, seeds[0])
        program = Program.read(self.rows["program"].iloc[0])
        for index, arrays in self._batches(last.load(), last.config, program, self.rows["seed"].to_numpy()):
            yield {name: values[index] for name, values in self.made.items()} | arrays

    def _batches(
        self, model: DiffusionModel, config: Sample, program: Program, seeds: np.ndarray
    ) -> Iterator[tuple[np.ndarray, Arrays]]:
        """Each microbatch's rows and what is made of them."""
        given = model.conditions.arrays(self.rows, self._given) | self._conditions(model)
        inverted = self._given_inputs(model) if program.start.inverted else None
        inputs = self._inputs((*model.target.reads, FREE, BLEND)) if program.reads_tile else {}
        nulls = null(given, model.specs)
        for _, rows in self.rows.groupby("batch"):
            index = np.resize(rows.index.to_numpy(), self.size)
            own = Rows(
                seeds[index],
                _augmented(batch(given, model.specs, index), model, config, seeds[index]),
                nulls,
                {name: values[index] for name, values in inputs.items()},
                None if inverted is None else batch(inverted, model.specs, index),
                {name: [*self.rows[column].iloc[index].fillna("")] for name, column in ASKED.items()},
            )
            drawn = Drawn(model, config, own, program)
            arrays = registered("reduce", program.reduce.name)(drawn, program.reduce)
            yield rows.index.to_numpy(), {name: values[: len(rows)] for name, values in arrays.items()}

    def _oversample(self, times: Mapping[str, float], seed: int) -> None:
        """Draw the rows' arrays anew, as many, those whose masks hold a class so many times as often."""
        weights = np.ones(len(self.rows))
        for name, factor in times.items():
            weights += (factor - 1) * (self.made["mask"] == 1 + self.classes.index(name)).any((1, 2))
        places = (np.arange(len(weights)) + np.random.default_rng(seed).random()) / len(weights)
        index = np.searchsorted(np.cumsum(weights) / weights.sum(), places)
        for arrays in (self.made, self.conditions):
            arrays.update({name: values[index] for name, values in arrays.items()})

    def _conditions(self, model: DiffusionModel) -> Arrays:
        return {name: values for name, values in self.conditions.items() if name in model.conditions.names}

    def _given(self, name: str) -> np.ndarray:
        """An array that conditions are made of: what a model before made, or what the plan holds."""
        return self.made[name] if name in self.made else planned_tiles(self.plan, self.part, name)

    def _inputs(self, names: Sequence[str]) -> Arrays:
        """The arrays of the tiles that the rows begin from, and where they are made anew."""
        found = {name: input_tiles(self.plan, self.part, name) for name in names}
        return {name: values for name, values in found.items() if values is not None}

    def _given_inputs(self, model: DiffusionModel) -> Arrays:
        """The arrays of those tiles' own conditions."""
        own = pd.DataFrame([json.loads(text) for text in self.rows["input_conditions"]], index=self.rows.index)
        return model.conditions.arrays(self.rows.assign(**dict(own.items())), lambda name: self._inputs((name,))[name])


def _augmented(given: Conditions, model: DiffusionModel, config: Sample, seeds: np.ndarray) -> Conditions:
    """Noise of a stated deviation on pictures that are given. Models that aren't told of noise get none."""
    levels = {n: s for n, s in config.augment.items() if NOISE in read_channels(model.record.channels.get(n, ()))[0]}
    if not levels or given.map is None:
        return given
    own = [item_seed(int(seed), "augment") for seed in seeds]
    noise = torch.from_numpy(latent_noise(own, tuple(given.map.shape[1:])))
    return augmented(given, model.specs, {n: torch.full((len(seeds),), s) for n, s in levels.items()}, noise)
