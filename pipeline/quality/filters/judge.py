"""The filters in use together: fitted, calibrated, and judging tiles."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import TrainFilters
from pipeline.data.commit import write_json
from pipeline.progress import console
from pipeline.quality.filters.agreement import MaskFilter, RnaFilter, TextFilter
from pipeline.quality.filters.base import Filter, Fitting, Tiles
from pipeline.quality.filters.copies import CopyFilter
from pipeline.quality.filters.distance import DistanceFilter
from pipeline.quality.filters.labels import DisagreementFilter, LabelFilter
from pipeline.quality.filters.reviewed import ReviewFilter
from pipeline.quality.filters.tissue import QualityFilter

FILTERS: dict[str, type[Filter]] = {
    kind.name: kind
    for kind in (
        QualityFilter, DistanceFilter, LabelFilter, DisagreementFilter, MaskFilter, TextFilter, RnaFilter, CopyFilter,
        ReviewFilter,
    )
}  # fmt: skip
_FILE = "filters.json"


@dataclass(frozen=True)
class Judge:
    """Filters in their order, and their thresholds by name."""

    filters: tuple[Filter, ...]
    thresholds: dict[str, float | None]

    def __call__(self, tiles: Tiles) -> pd.DataFrame:
        """A row a tile: all scores, `accepted`, and `reject_reasons` (joined by '; ', empty where accepted)."""
        scores = pd.concat([pd.DataFrame(index=range(len(tiles))), *(f.scores(tiles) for f in self.filters)], axis=1)
        reasons: list[list[str]] = [[] for _ in range(len(tiles))]
        for filter_ in self.filters:
            values = scores[filter_.column].to_numpy(float)
            for place in np.flatnonzero(filter_.rejects(values, self.thresholds[filter_.name])):
                reasons[place].append(filter_.reason)
        return scores.assign(accepted=[not r for r in reasons], reject_reasons=["; ".join(r) for r in reasons])

    def save(self, folder: Path) -> None:
        for filter_ in self.filters:
            (folder / filter_.name).mkdir()
            filter_.save(folder / filter_.name)
        write_json(folder / _FILE, {"order": [f.name for f in self.filters], "thresholds": self.thresholds})


def load_judge(folder: Path) -> Judge:
    facts = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return Judge(tuple(FILTERS[name].load(folder / name) for name in facts["order"]), facts["thresholds"])


def fit_judge(
    names: tuple[str, ...], fitting: Fitting, held_out: Tiles, config: TrainFilters
) -> tuple[Judge, pd.DataFrame]:
    """Fit the named filters to the train split, and calibrate them on held-out tiles.

    Returns
    -------
    The judge, and its scores of the held-out tiles.
    """
    fitted = {name: FILTERS[name].fit(fitting) for name in names}
    for name in (name for name, found in fitted.items() if found is None):
        console.print(f"filter '{name}' has nothing to judge here (fewer than two labels), and is left out")
    filters = tuple(found for found in fitted.values() if found is not None)
    scores = Judge(filters, {f.name: None for f in filters})(held_out)
    limits = {f.name: f.threshold(scores[f.column].to_numpy(float), config.share(f.name)) for f in filters}
    return Judge(filters, limits), scores
