"""A person's verdict on a tile, in a blinded review."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.errors import HistoloomError
from histoloom.quality.filters.base import Filter, Fitting, Tiles
from histoloom.quality.review import hash_image

_FILE = "verdicts.csv"


@dataclass(frozen=True)
class ReviewFilter(Filter):
    """1 for a tile that a reader found unusable, 0 for one that they let pass; no score for one that they didn't see.

    A verdict holds for a picture, pixel by pixel. Another picture of the same name has none.
    """

    path: Path
    name = "review"
    reason = "found unusable in a review"
    high_is_bad = True
    calibrated = False

    @classmethod
    def fit(cls, fitting: Fitting) -> ReviewFilter:
        reviews = fitting.study.reviews
        if not reviews.is_file():
            raise HistoloomError(
                f"filter.use names review, and there is no {reviews}: run histoloom review make and score, or take it out."
            )
        return cls(reviews)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        table = pd.read_csv(self.path, dtype=str)
        said = dict(zip(table["image_sha256"], table["usable"] == "no"))
        found = [said.get(hash_image(image), np.nan) for image in tiles.images]
        return pd.DataFrame({self.column: np.array(found, float)})

    def threshold(self, scores: np.ndarray, fraction: float) -> float:
        return 0.5

    def save(self, folder: Path) -> None:
        shutil.copy(self.path, folder / _FILE)

    @classmethod
    def load(cls, folder: Path) -> ReviewFilter:
        return cls(folder / _FILE)
