"""Is a tile a copy of a train tile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from scipy.stats import gumbel_r

from pipeline.quality.filters.base import Filter, Fitting, Tiles
from pipeline.quality.near_copy import CopyIndex, build_index, copy_scores

_LEAST_FITTED = 30


@dataclass(frozen=True)
class CopyFilter(Filter):
    """The correlation with the train tile that it fits best (near_copy.py), and which one that is."""

    index: CopyIndex
    name = "near_copy"
    reason = "near-copy of a train tile"
    high_is_bad = True

    @classmethod
    def fit(cls, fitting: Fitting) -> CopyFilter:
        return cls(build_index(fitting.train.rows["tile_id"].to_numpy(str), fitting.train.images))

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        score, nearest = copy_scores(tiles.images, self.index)
        ids = self.index.tile_ids[nearest] if len(tiles) else np.array([], str)
        return pd.DataFrame({self.column: score, "nearest_train_tile": ids})

    def threshold(self, scores: np.ndarray, share: float) -> float | None:
        """As for every filter, but shares smaller than one tile of those held out are read off a Gumbel distribution:
        a score is the highest of many correlations, and such maxima have its tail."""
        known = scores[np.isfinite(scores)]
        plain = super().threshold(known, share)
        if share <= 0 or share * len(known) >= 1 or len(known) < _LEAST_FITTED:
            return plain
        return float(gumbel_r(*gumbel_r.fit(known)).ppf(1 - share))

    def save(self, folder: Path) -> None:
        save_file({"grey": self.index.grey, "axes": self.index.axes}, folder / "copies.safetensors")
        (folder / "copies.json").write_text(json.dumps(self.index.tile_ids.tolist()) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> CopyFilter:
        ids = json.loads((folder / "copies.json").read_text(encoding="utf-8"))
        return cls(CopyIndex(np.array(ids, str), **load_file(folder / "copies.safetensors")))
