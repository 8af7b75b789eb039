"""What every condition is: where rows state it, how it is fitted and loaded, and the arrays that it becomes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pandas as pd

from histoloom.config import Params
from histoloom.config.denoiser_record import Shape
from histoloom.data.keys import StudyKeys
from histoloom.data.lineage import Lineage, lineage_of_masks
from histoloom.data.lineage_match import grid_of
from histoloom.data.manifest import Manifest
from histoloom.data.store import TileStore
from histoloom.errors import Fault, Note, notes_among, refuse_faults
from histoloom.progress import console

Arrays = dict[str, np.ndarray]
ReadTiles = Callable[[str], np.ndarray]
"""The rows' own array of a name, such as `image` or `mask`: (n, h, w, ...)."""


@dataclass(frozen=True)
class Source:
    """What a condition is loaded from.

    channels : what its channels stand for, as a denoiser's record or params tell; empty where neither does.
    px : side of the data that a map lies beside.
    folder : of the encoders, as `train_encoders` wrote it. facts : what `fit` said there of this condition.
    """

    channels: tuple[str, ...]
    px: int
    folder: Path
    facts: Mapping[str, Any]
    device: str = "cpu"


@dataclass(frozen=True)
class FitJob:
    """What a condition is fitted to: the train rows of a store, and no others.

    folder : where it may write a folder of its name.
    checkpoints : where a training of its name may keep its own. curves : where it may draw.
    processes : how many share a training, as cluster.yaml says.
    """

    params: Params
    store: TileStore
    rows: pd.DataFrame
    device: str
    folder: Path
    checkpoints: Path
    curves: Path
    processes: int | str = 1

    @property
    def lineage(self) -> Lineage:
        """Of what is trained on these rows."""
        return Lineage.trained_on(self.rows, grid_of(self.params.tile.split)) | lineage_of_masks(self.store)

    def keys(self, key: str) -> StudyKeys:
        """The samples that tiles have."""
        return StudyKeys(frozenset(self.rows[key].dropna()), frozenset(self.store.rows([key])[key].dropna()))

    def check(self, found: list[Fault | Note]) -> None:
        """Say notes, and refuse faults."""
        for note in notes_among(found):
            console.print(f"train_encoders: {note}", markup=False)
        refuse_faults(found)


@dataclass(frozen=True)
class Fitted:
    """A condition that was fitted: the facts that load it, what was measured of it, and what it was trained on."""

    facts: Mapping[str, object] = field(default_factory=dict)
    metrics: Mapping[str, object] = field(default_factory=dict)
    lineage: Lineage = field(default_factory=Lineage)


class Condition(ABC):
    """What a tile is made under. Its null, which stands for "not given", is zeros, or the empty caption.

    shape : sequence, vector or map (see `batch.Conditions`).
    column : of rows and plans that states it; None of a condition that is made of a tile's arrays.
    reads : the arrays of a tile that it is made of. carries : those that synthetic tiles get along with them, where there are any.
    hot : whether its numbers are 0 or 1.
    """

    name: ClassVar[str]
    shape: ClassVar[Shape]
    column: ClassVar[str | None] = None
    reads: ClassVar[tuple[str, ...]] = ()
    carries: ClassVar[tuple[str, ...]] = ()
    hot: ClassVar[bool] = False

    @classmethod
    def stated(cls, rows: pd.DataFrame, params: Params) -> pd.Series | None:
        """The values of `column` for real rows; None where the rows have it."""
        return None

    @classmethod
    def check(cls, params: Params, manifest: Manifest) -> Iterable[Fault | Note]:
        """What `fit` or later stages would refuse, as far as params and the manifest tell."""
        return ()

    @classmethod
    def known_channels(cls, params: Params) -> tuple[str, ...]:
        """What params tell of its channels."""
        return ()

    @classmethod
    def fit(cls, job: FitJob) -> Fitted | None:
        """Learn from train rows what `load` needs; None of a condition that learns nothing."""
        return None

    @classmethod
    @abstractmethod
    def load(cls, source: Source) -> Self:
        """The condition as it was fitted."""

    @property
    @abstractmethod
    def channels(self) -> tuple[str, ...]:
        """What each channel stands for; empty of a text tower, whose channels have no names."""

    @property
    def size(self) -> int:
        """How many channels it has."""
        return len(self.channels)

    @abstractmethod
    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        """Its arrays, with a row each: under its name (n, size) of a vector, (n, size, px, px) of a map."""
