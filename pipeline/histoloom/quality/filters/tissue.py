"""Is it tissue at all, in focus and of this stain: do its physical measures lie where those of real tiles do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from histoloom.quality.filters.base import Filter, Fitting, Tiles
from histoloom.quality.tissue_measures import TissueRange, fit_range, load_range


@dataclass(frozen=True)
class QualityFilter(Filter):
    """Minus the distance of the tile's physical measures from those of real tissue."""

    range: TissueRange
    name = "quality"
    reason = "low tissue quality"
    cross_fitted = True

    @classmethod
    def fit(cls, fitting: Fitting) -> QualityFilter:
        return cls(fit_range(fitting.train.images))

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        return pd.DataFrame({self.column: self.range.score(tiles.images)})

    def save(self, folder: Path) -> None:
        self.range.save(folder)

    @classmethod
    def load(cls, folder: Path) -> QualityFilter:
        return cls(load_range(folder))
