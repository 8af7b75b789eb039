"""The scale of a tile as a vector: log2 of its µm/px, and whether it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from histoloom.conditions.condition import Arrays, Condition, ReadTiles, Source


@dataclass(frozen=True)
class MagnificationCondition(Condition):
    name = "magnification"
    shape = "vector"
    column = "mpp"
    channels = ("log2 mpp", "given")

    @classmethod
    def load(cls, source: Source) -> Self:
        return cls()

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        mpp = rows["mpp"].to_numpy(float)
        given = np.isfinite(mpp)
        return {self.name: np.stack([np.log2(np.where(given, mpp, 1)), given], 1).astype(np.float32)}
