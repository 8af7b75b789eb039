"""What every filter is: fitted to real train tiles, some to the generator's too, it scores any tiles, and says why it rejects."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pandas as pd

from histoloom.conditions.feature_extractors import Extractor
from histoloom.config import Params
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.training.reconstruction import given_back


@dataclass(frozen=True)
class Tiles:
    """Tiles as filters are given them, real or synthetic.

    images : (n, h, w, 3) uint8
    rows : a row each, with what they are to show: `label`, `caption`, `rna`, and whether `masked`
    read : the rows' own 'mask', (n, h, w) uint8 class ids; None where none has one
    """

    images: np.ndarray
    rows: pd.DataFrame
    read: Callable[[str], np.ndarray | None]
    extractor: Extractor

    @cached_property
    def features(self) -> np.ndarray:
        """(n, d)"""
        return self.extractor.features(self.images)

    def __len__(self) -> int:
        return len(self.images)

    def part(self, chosen: np.ndarray) -> Tiles:
        """The tiles that `chosen` (n,) bool names, with their features where these are known."""

        def read(name: str) -> np.ndarray | None:
            whole = self.read(name)
            return None if whole is None else whole[chosen]

        tiles = Tiles(self.images[chosen], self.rows[chosen].reset_index(drop=True), read, self.extractor)
        if "features" in self.__dict__:
            tiles.__dict__["features"] = self.features[chosen]
        return tiles


@dataclass(frozen=True, eq=False)
class Fitting:
    """What a filter may be fitted to.

    train : real tiles of the train split, evenly spread over it where there are very many
    everything, batches : all rows of the train split, and their images (b, h, w, 3) uint8 in order
    work : folder for checkpoints
    fold : of cross-fitting, the fold of split groups that train lacks; None otherwise
    held_out, synthetic : real tiles that the generator didn't see, and tiles that it made; for filters `of_generator` alone
    """

    train: Tiles
    everything: pd.DataFrame
    batches: Callable[[], Iterable[np.ndarray]]
    study: Study
    work: Path
    device: str
    fold: int | None = None
    held_out: Tiles | None = None
    synthetic: Tiles | None = None

    @property
    def params(self) -> Params:
        return self.study.params

    @property
    def encoders(self) -> Path:
        """The folder that `train_encoders` wrote."""
        return self.study.encoders


class Filter(ABC):
    """One filter. Its score's column is `{name}_score`; a tile without a score (NaN) is never rejected.

    reason : why a tile is rejected, in words
    cross_fitted : whether its threshold rests on train tiles too, scored by a filter that was fitted without their split group
    sees_features : whether it looks at the tiles' features
    of_generator : whether it looks at the generator or at what that made, so that it is fitted in the stage `filter`
    calibrated : whether its threshold is set by a fraction of real tiles that it may reject
    high_is_bad : whether it rejects tiles above the threshold, rather than below
    """

    name: ClassVar[str]
    reason: ClassVar[str]
    cross_fitted: ClassVar[bool] = False
    sees_features: ClassVar[bool] = False
    of_generator: ClassVar[bool] = False
    calibrated: ClassVar[bool] = True
    high_is_bad: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def fit(cls, fitting: Fitting) -> Filter | None:
        """Fit to the train split; None where its tiles have nothing that the filter looks at.

        Raises
        ------
        HistoloomError
            when the study lacks what the filter was asked by name to look at.
        """

    def checked_on(self, held_out: Tiles) -> Self:
        """The filter after it has looked at tiles that it was not fitted to."""
        return self

    @staticmethod
    def applies_to(tiles: Tiles) -> np.ndarray:
        """(n,) bool: which tiles have what it looks at."""
        return np.ones(len(tiles), bool)

    @abstractmethod
    def scores(self, tiles: Tiles) -> pd.DataFrame:
        """A row a tile: `{name}_score`, and what else explains it."""

    @abstractmethod
    def save(self, folder: Path) -> None: ...

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Filter: ...

    def threshold(self, scores: np.ndarray, fraction: float) -> float | None:
        """Where it would reject at most this fraction of real tiles like the held-out ones whose scores (n,) these are.

        It is one of the scores, the k-th worst: of new tiles k in n + 1 are worse. k is fraction (n + 1), rounded down, but
        at least 1, so that fewer tiles than 1 / fraction give a higher fraction than was asked for. None where no tile has
        a score.
        """
        known = np.sort(scores[np.isfinite(scores)])
        if not len(known):
            return None
        worst = max(int(fraction * (len(known) + 1) + 1e-9), 1)
        return float(known[-worst] if self.high_is_bad else known[worst - 1])

    def rejects(self, scores: np.ndarray, threshold: float | None) -> np.ndarray:
        """(n,) bool"""
        if threshold is None:
            return np.zeros(len(scores), bool)
        return scores > threshold if self.high_is_bad else scores < threshold

    def reasons(self, scores: pd.DataFrame, threshold: float | None) -> dict[str, np.ndarray]:
        """Each reason to the tiles that are rejected for it, (n,) bool; `scores` are those that `scores` gave."""
        return {self.reason: self.rejects(scores[self.column].to_numpy(float), threshold)}

    @property
    def column(self) -> str:
        return f"{self.name}_score"


def tiles_of(store: TileStore, rows: pd.DataFrame, extractor: Extractor) -> Tiles:
    """Rows of a store, to be looked at."""

    def read(name: str) -> np.ndarray | None:
        return store.read(rows, name) if all(store.has(name, part) for part in rows["part"].unique()) else None

    return Tiles(store.read(rows), rows, read, extractor)


def as_made(study: Study, tiles: Tiles, device: str) -> Tiles:
    """Real tiles as the generator's autoencoder gives them back: what it loses, no choice among its tiles mends."""
    images = given_back(study, tiles.images, device)
    return tiles if images is None else replace(tiles, images=images)


def joined(parts: Sequence[Tiles]) -> Tiles:
    """Tiles of several stores as one, without their masks."""
    rows = pd.concat([part.rows for part in parts], ignore_index=True)
    return Tiles(np.concatenate([part.images for part in parts]), rows, lambda _: None, parts[0].extractor)
