"""Genotypes as a vector with three states a marker: altered (and how), not altered, not tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from histoloom.config.denoiser_record import Shape
from histoloom.data.genotype import WILD_TYPE, parse_genotype
from histoloom.errors import HistoloomError

TESTED = "tested"


@dataclass(frozen=True)
class GenotypeEncoder:
    """channels : `MARKER STATE`, one for each alteration of a marker that occurs, and `MARKER tested`."""

    channels: tuple[str, ...]
    name = "genotype"
    shape: ClassVar[Shape] = "vector"

    def arrays(self, rows: pd.DataFrame, _) -> dict[str, np.ndarray]:
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
