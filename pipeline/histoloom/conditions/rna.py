"""Expression as a vector: the code of a profile, as the encoder of `train_encoders` gave it, and whether it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from histoloom.conditions.condition import Arrays, Condition, ReadTiles, Source
from histoloom.config import Params

CODES = "codes.parquet"


@dataclass(frozen=True)
class RnaCondition(Condition):
    """codes : a row a sample, indexed by the sample's key. A tile whose sample isn't there has the null, zeros."""

    codes: pd.DataFrame
    name = "rna"
    shape = "vector"
    column = "rna"

    @classmethod
    def stated(cls, rows: pd.DataFrame, params: Params) -> pd.Series:
        """The key of a tile's profile."""
        return rows[params.train_encoders.rna.key]

    @classmethod
    def load(cls, source: Source) -> Self:
        path = source.folder / "rna" / CODES
        if not path.is_file():  # a package holds none, as they are of patients
            return cls(pd.DataFrame(columns=list(source.channels[:-1]), dtype=np.float32))
        return cls(pd.read_parquet(path))

    @property
    def channels(self) -> tuple[str, ...]:
        return (*self.codes.columns, "given")

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        found = self.codes.reindex(rows["rna"].to_numpy(object)).to_numpy(np.float32)
        given = np.isfinite(found[:, :1]).astype(np.float32)
        return {self.name: np.concatenate([np.nan_to_num(found), given], 1)}
