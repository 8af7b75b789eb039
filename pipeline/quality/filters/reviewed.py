"""What a person said of a tile, in a blinded review."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.errors import HistoloomError
from pipeline.quality.filters.base import Filter, Fitting, Tiles
from pipeline.quality.review import REVIEWED


@dataclass(frozen=True)
class ReviewFilter(Filter):
    """1 for a tile that a reader found unusable, 0 for one that they let pass; none for one that they didn't see.

    A verdict holds for the tile as that generator made it, and for no other.
    """

    path: Path
    name = "review"
    reason = "found unusable in a review"
    high_is_bad = True

    @classmethod
    def fit(cls, fitting: Fitting) -> ReviewFilter:
        if not REVIEWED.is_file():
            raise HistoloomError(
                f"filter.use names review, and there is no {REVIEWED}: run histoloom review make and score, or take it out."
            )
        return cls(REVIEWED)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        table = pd.read_csv(self.path, dtype=str)
        said = dict(zip(zip(table["tile_id"], table["generator_sha256"]), table["usable"] == "no"))
        makers = tiles.rows.get("generator_sha256", pd.Series("", tiles.rows.index))
        found = [said.get(key, np.nan) for key in zip(tiles.rows["tile_id"], makers)]
        return pd.DataFrame({self.column: np.array(found, float)})

    def threshold(self, scores: np.ndarray, share: float) -> float:
        return 0.5

    def save(self, folder: Path) -> None:
        shutil.copy(self.path, folder / REVIEWED.name)

    @classmethod
    def load(cls, folder: Path) -> ReviewFilter:
        return cls(folder / REVIEWED.name)
