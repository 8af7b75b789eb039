"""Expression as a vector: the code of a profile, as the encoder of `train_encoders` gave it, and whether it is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd

from histoloom.config.denoiser_record import Shape

CODES = "codes.parquet"


@dataclass(frozen=True)
class RnaEncoder:
    """codes : a row a sample, indexed by the sample's key. A tile whose sample isn't there has the null, zeros."""

    codes: pd.DataFrame
    name = "rna"
    shape: ClassVar[Shape] = "vector"

    @property
    def channels(self) -> tuple[str, ...]:
        return (*self.codes.columns, "given")

    def arrays(self, rows: pd.DataFrame, _) -> dict[str, np.ndarray]:
        found = self.codes.reindex(rows["rna"].to_numpy(object)).to_numpy(np.float32)
        given = np.isfinite(found[:, :1]).astype(np.float32)
        return {self.name: np.concatenate([np.nan_to_num(found), given], 1)}


def load_rna_encoder(folder: Path) -> RnaEncoder:
    return RnaEncoder(pd.read_parquet(folder / CODES))
