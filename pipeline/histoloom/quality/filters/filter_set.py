"""The filters in use together: fitted, calibrated, and applied to tiles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.conditions.feature_extractors import Extractor, load_extractor
from histoloom.config import TrainFilters
from histoloom.data.commit import write_json
from histoloom.data.rows import spread
from histoloom.progress import console
from histoloom.quality.filters.anomaly import AnomalyFilter
from histoloom.quality.filters.base import Filter, Fitting, Tiles
from histoloom.quality.filters.conditions import MaskFilter, RnaFilter, TextFilter
from histoloom.quality.filters.distance import DistanceFilter
from histoloom.quality.filters.labels import LabelFilter
from histoloom.quality.filters.near_copy import CopyFilter
from histoloom.quality.filters.realism import RealismFilter
from histoloom.quality.filters.reviewed import ReviewFilter
from histoloom.quality.filters.tissue import QualityFilter

FILTERS: dict[str, type[Filter]] = {
    kind.name: kind
    for kind in (
        QualityFilter, DistanceFilter, LabelFilter, MaskFilter, TextFilter, RnaFilter, RealismFilter,
        AnomalyFilter, CopyFilter, ReviewFilter,
    )
}  # fmt: skip
EXTRACTOR = "extractor.json"
"""The file beside the filters that says which features they look at."""
_FILE = "filters.json"
_FOLDS = 5
_CROSS_FITTED_TILES = 4096


@dataclass(frozen=True)
class FilterSet:
    """Filters in their order, and their thresholds by name."""

    filters: tuple[Filter, ...]
    thresholds: dict[str, float | None]

    def __call__(self, tiles: Tiles) -> pd.DataFrame:
        """A row a tile: all scores, `accepted`, and `reject_reasons`, a list that is empty where the tile is accepted."""
        scores = pd.concat([pd.DataFrame(index=range(len(tiles))), *(f.scores(tiles) for f in self.filters)], axis=1)
        reasons: list[list[str]] = [[] for _ in range(len(tiles))]
        for filter_ in self.filters:
            for reason, rejected in filter_.reasons(scores, self.thresholds[filter_.name]).items():
                for place in np.flatnonzero(rejected):
                    reasons[place].append(reason)
        return scores.assign(accepted=[not r for r in reasons], reject_reasons=reasons)

    def joined(self, other: FilterSet, order: tuple[str, ...]) -> FilterSet:
        """Both sets' filters, in the order of their names."""
        filters = sorted([*self.filters, *other.filters], key=lambda filter_: order.index(filter_.name))
        return FilterSet(tuple(filters), self.thresholds | other.thresholds)

    def save(self, folder: Path) -> None:
        for filter_ in self.filters:
            (folder / filter_.name).mkdir()
            filter_.save(folder / filter_.name)
        write_json(folder / _FILE, {"order": [f.name for f in self.filters], "thresholds": self.thresholds})


def load_filter_set(folder: Path) -> FilterSet:
    facts = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    return FilterSet(tuple(FILTERS[name].load(folder / name) for name in facts["order"]), facts["thresholds"])


def extractor_of(folder: Path, device: str) -> Extractor:
    """The network that the filters of a folder look through."""
    record = json.loads((folder / EXTRACTOR).read_text(encoding="utf-8"))
    return load_extractor(record["name"], device).check(record)


@dataclass(frozen=True)
class Calibration:
    """Filters whose thresholds are set, and the scores of real tiles that they were set by.

    held_out : a row a held-out tile, with all scores.
    scores : filter to the scores (n,) that its threshold was read off: those of the held-out tiles, then, of a
        cross-fitted filter, those of train tiles.
    """

    filter_set: FilterSet
    held_out: pd.DataFrame
    scores: dict[str, np.ndarray]


def fit_filter_set(names: tuple[str, ...], fitting: Fitting, held_out: Tiles, config: TrainFilters) -> Calibration:
    """Fit the named filters to the train split, and calibrate them on real tiles that they were not fitted to.

    The few patients of a val split don't show how patients differ. So filters score the train tiles too, each by a filter
    that was fitted without the tile's split group. Two kinds don't: those that look through encoders, which all of train
    taught, and `near_copy`, which learns nothing.
    """
    fitted = {name: FILTERS[name].fit(fitting) for name in names}
    for name in (name for name, found in fitted.items() if found is None):
        console.print(f"filter '{name}' has nothing to look at here (fewer than two labels), and is left out")
    filters = tuple(found.checked_on(held_out) for found in fitted.values() if found is not None)
    held_out_scores = FilterSet(filters, {f.name: None for f in filters})(held_out)
    scores = {f.name: held_out_scores[f.column].to_numpy(float) for f in filters}
    for name, more in _cross_fitted([type(f) for f in filters if f.cross_fitted], fitting):
        scores[name] = np.concatenate([scores[name], more])
    limits = {f.name: f.threshold(scores[f.name], config.false_rejection_of(f.name)) for f in filters}
    for name in (name for name, limit in limits.items() if limit is None):
        console.print(
            f"filter '{name}' rejects nothing: no real tile that it was not fitted to has what it looks at, so that no threshold is known"
        )
    return Calibration(FilterSet(filters, limits), held_out_scores, scores)


def _cross_fitted(kinds: Iterable[type[Filter]], fitting: Fitting) -> Iterator[tuple[str, np.ndarray]]:
    """Names of filters, and their scores of train tiles, one fold of split groups after the other.

    A tile is scored only where the other folds show its label. Groups that have labels or masks are dealt out first, so
    that no fold has them all.
    """
    some = spread(fitting.train.rows, _CROSS_FITTED_TILES)
    train = fitting.train.part(fitting.train.rows.index.isin(some.index))
    groups, labels = (train.rows[name].to_numpy(object) for name in ("split_group", "label"))
    names = np.random.default_rng(0).permutation(np.unique(groups.astype(str)))
    applicable = {kind: kind.applies_to(train) for kind in kinds}
    known = sum(np.isin(names, groups[tiles].astype(str)) for tiles in applicable.values()) + np.zeros(len(names))
    names = names[np.argsort(-known, kind="stable")]
    for number in range(_FOLDS):
        out = np.isin(groups, names[number::_FOLDS])
        rest = replace(fitting, train=train.part(~out), fold=number)
        shown = pd.isna(labels) | np.isin(labels, labels[~out & ~pd.isna(labels)])
        for kind, tiles in applicable.items():
            asked = out & tiles & shown
            found = kind.fit(rest) if asked.any() and (tiles & ~out).any() else None
            if found is not None:
                yield kind.name, found.scores(train.part(asked))[f"{kind.name}_score"].to_numpy(float)
