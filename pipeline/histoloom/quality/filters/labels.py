"""Does a tile show its label: what an ensemble of classifiers on features says.

After the curation of Akrout et al. 2023: an ensemble sees the tiles that are tissue at all, and those are kept whose label it
agrees with.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
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
        """Fit each member to a draw of groups (of tiles, where there are few groups) that has all classes.

        None where there is one class alone.
        """
        tiles, classes = fitting.train, fitting.params.tile.labels.classes
        labelled = np.flatnonzero(cls.applies_to(tiles))
        labels = tiles.rows["label"].to_numpy(object)[labelled]
        if len(set(labels)) < 2:
            return None
        features, groups = tiles.features[labelled], tiles.rows["split_group"].to_numpy(object)[labelled]
        draws = group_draws(groups, labels, MEMBERS, np.random.default_rng(fitting.params.seed))
        return cls(Ensemble(tuple(fit_classifier(features[draw], labels[draw].tolist(), classes) for draw in draws)))

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
