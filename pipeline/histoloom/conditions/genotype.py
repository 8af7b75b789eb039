"""Genotypes as a vector with three states a marker: altered (and how), not altered, not tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from histoloom.conditions.condition import Arrays, Condition, FitJob, Fitted, ReadTiles, Source
from histoloom.config import Params
from histoloom.data.genotype import WILD_TYPE, parse_genotype
from histoloom.data.genotype_table import read_genotype
from histoloom.data.keys import check_matches, unmatched
from histoloom.errors import HistoloomError

TESTED = "tested"


@dataclass(frozen=True)
class GenotypeCondition(Condition):
    """channel_names : `MARKER STATE`, one for each alteration of a marker that occurs, and `MARKER tested`."""

    channel_names: tuple[str, ...]
    name = "genotype"
    shape = "vector"
    hot = True
    column = "genotype"

    @property
    def channels(self) -> tuple[str, ...]:
        return self.channel_names

    @classmethod
    def stated(cls, rows: pd.DataFrame, params: Params) -> pd.Series:
        """A tile's genotype as text."""
        config = params.train_encoders.genotype
        return rows[config.key].map(read_genotype(config)).astype(object)

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        """The markers of the table, and every alteration that occurs."""
        config = job.params.train_encoders.genotype
        genotypes, keys = read_genotype(config), job.keys(config.key)
        job.check(check_matches(genotypes.index, keys, config))
        channels = genotype_channels(genotypes)
        mine = genotypes[genotypes.index.isin(keys.train)]
        tested = {marker: sum(marker in parse_genotype(text) for text in mine) for marker in _markers(channels)}
        altered = {
            channel: sum(channel in _hot(text) for text in mine)
            for channel in channels
            if not channel.endswith(f" {TESTED}")
        }
        metrics = {"train_samples": len(mine), "tested": tested, "altered": altered} | unmatched(genotypes.index, keys)
        return Fitted({"channels": channels}, metrics)

    @classmethod
    def load(cls, source: Source) -> Self:
        return cls(tuple(source.facts["channels"]))

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        """(n, channels) of 0 and 1. Nothing tested is all zeros, which is the null.

        Raises
        ------
        HistoloomError
            for a marker or a state that the model doesn't know.
        """
        place = {channel: index for index, channel in enumerate(self.channels)}
        out = np.zeros((len(rows), len(self.channels)), np.float32)
        for row, text in enumerate(rows["genotype"]):
            for marker, state in parse_genotype(text).items():
                hot = [f"{marker} {TESTED}"] + ([f"{marker} {state}"] if state != WILD_TYPE else [])
                if unknown := [channel for channel in hot if channel not in place]:
                    raise HistoloomError(
                        f"Genotype '{marker}={state}' of '{rows['tile_id'].iloc[row]}' is not one that the model was "
                        f"made for ('{unknown[0]}'); it knows {', '.join(self.channels)}."
                    )
                out[row, [place[channel] for channel in hot]] = 1
        return {self.name: out}


def genotype_channels(genotypes: pd.Series) -> tuple[str, ...]:
    """The channels for genotypes (text): every marker, and every alteration of it that occurs."""
    states_of: dict[str, set[str]] = {}
    for text in genotypes.dropna():
        for marker, state in parse_genotype(text).items():
            states_of.setdefault(marker, set()).add(state)
    return tuple(
        channel
        for marker, states in states_of.items()
        for channel in (f"{marker} {TESTED}", *(f"{marker} {state}" for state in sorted(states - {WILD_TYPE})))
    )


def _markers(channels: tuple[str, ...]) -> list[str]:
    return [channel.removesuffix(f" {TESTED}") for channel in channels if channel.endswith(f" {TESTED}")]


def _hot(text: str) -> set[str]:
    return {f"{marker} {state}" for marker, state in parse_genotype(text).items()}
