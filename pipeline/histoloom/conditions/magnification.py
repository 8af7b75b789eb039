"""The scale of a tile as a vector: log2 of its µm/px, and whether it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from histoloom.config.denoiser_record import Shape


@dataclass(frozen=True)
class MagnificationEncoder:
    name = "magnification"
    shape: ClassVar[Shape] = "vector"
    channels = ("log2 mpp", "given")

    def arrays(self, rows: pd.DataFrame, _) -> dict[str, np.ndarray]:
        mpp = rows["mpp"].to_numpy(float)
        given = np.isfinite(mpp)
        return {self.name: np.stack([np.log2(np.where(given, mpp, 1)), given], 1).astype(np.float32)}
