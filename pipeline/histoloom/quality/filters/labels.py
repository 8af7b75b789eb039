"""Does a tile show its label: what an ensemble of classifiers on features says, and how far its members disagree.

After the curation of Akrout et al. 2023: an ensemble sees the tiles that are tissue at all, and those are kept whose label it
agrees with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.learners.linear import LinearClassifier, fit_classifier, load_classifier
from histoloom.quality.filters.base import Filter, Fitting, Tiles
from histoloom.quality.intervals import group_draws

MEMBERS = 5
_FILE = "ensemble.json"


@dataclass(frozen=True)
class Ensemble:
    """Classifiers of the same classes, each fitted to a draw of the train split's groups."""

    members: tuple[LinearClassifier, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.members[0].classes

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(n, d) to (members, n, classes)."""
        return np.stack([member.probabilities(features) for member in self.members])

    def save(self, folder: Path) -> None:
        for number, member in enumerate(self.members):
            member.save(folder, f"member-{number}")
        (folder / _FILE).write_text(json.dumps({"members": len(self.members)}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Ensemble:
        count = json.loads((folder / _FILE).read_text(encoding="utf-8"))["members"]
        return cls(tuple(load_classifier(folder, f"member-{number}") for number in range(count)))


@lru_cache(maxsize=1)
def fit_ensemble(fitting: Fitting) -> Ensemble | None:
    """Fit each member to a draw of groups (of tiles, where there are few groups) that has all classes.

    None where there is one class alone. Both filters below share it.
    """
    tiles, classes = fitting.train, fitting.params.tile.labels.classes
    labelled = np.flatnonzero(LabelFilter.applies_to(tiles))
    labels = tiles.rows["label"].to_numpy(object)[labelled]
    if len(set(labels)) < 2:
        return None
    features, groups = tiles.features[labelled], tiles.rows["split_group"].to_numpy(object)[labelled]
    draws = group_draws(groups, labels, MEMBERS, np.random.default_rng(fitting.params.seed))
    return Ensemble(tuple(fit_classifier(features[draw], labels[draw].tolist(), classes) for draw in draws))


@dataclass(frozen=True)
class LabelFilter(Filter):
    """The ensemble's mean probability of the tile's own label."""

    ensemble: Ensemble
    name = "label"
    reason = "does not show its label"
    cross_fitted = True
    sees_features = True

    @classmethod
    def fit(cls, fitting: Fitting):
        ensemble = fit_ensemble(fitting)
        return ensemble and cls(ensemble)

    @staticmethod
    def applies_to(tiles: Tiles) -> np.ndarray:
        return tiles.rows["label"].notna().to_numpy(bool)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        mean = self.ensemble.probabilities(tiles.features).mean(0)
        labels, classes = tiles.rows["label"], self.ensemble.classes
        own = [p[classes.index(label)] if label in classes else np.nan for p, label in zip(mean, labels)]
        return pd.DataFrame({self.column: np.array(own, float)})

    def save(self, folder: Path) -> None:
        self.ensemble.save(folder)

    @classmethod
    def load(cls, folder: Path):
        return cls(Ensemble.load(folder))


@dataclass(frozen=True)
class DisagreementFilter(LabelFilter):
    """How much the members differ: entropy of their mean less their mean entropy, in nats (BALD; Houlsby et
    al. 2011, eq. 2)."""

    name = "disagreement"
    reason = "classifiers disagree about it"
    high_is_bad = True

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        each = self.ensemble.probabilities(tiles.features)
        return pd.DataFrame({self.column: _entropy(each.mean(0)) - _entropy(each).mean(0)})


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -(probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(-1)
