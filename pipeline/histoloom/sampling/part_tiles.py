"""The conditions and tiles that a part of a plan is made from."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.conditions.condition import Arrays
from histoloom.data.inputs import FREE, input_tiles
from histoloom.data.plan import planned_tiles
from histoloom.sampling.diffusion_model import DiffusionModel


@dataclass(frozen=True)
class PartTiles:
    """rows : of the part. plan : the plan's folder. part : its name."""

    rows: pd.DataFrame
    plan: Path
    part: str

    def given(self, model: DiffusionModel) -> Arrays:
        """The arrays of the rows' conditions."""
        return model.conditions.arrays(self.rows, partial(planned_tiles, self.plan, self.part))

    def given_inputs(self, model: DiffusionModel) -> Arrays:
        """The arrays of the conditions of the tiles that the rows begin from."""
        own = pd.DataFrame([json.loads(text) for text in self.rows["input_conditions"]], index=self.rows.index)
        return model.conditions.arrays(self.rows.assign(**dict(own.items())), self._input)

    def inputs(self, names: Iterable[str]) -> Arrays:
        """The arrays of those tiles, and where they are made anew; empty where the rows begin from noise."""
        found = {name: input_tiles(self.plan, self.part, name) for name in (*names, FREE)}
        return {name: values for name, values in found.items() if values is not None}

    def _input(self, name: str) -> np.ndarray:
        values = input_tiles(self.plan, self.part, name)
        assert values is not None, f"the plan holds '{name}' of each tile that is inverted"
        return values
