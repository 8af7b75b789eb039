"""What is diffused: the arrays of a tile to data of about unit variance, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch

from histoloom.conditions.condition import FitJob, Fitted
from histoloom.config.package import TARGET_FACTS, read_json

Arrays = Mapping[str, np.ndarray]


def read_facts(folder: Path | str) -> dict[str, Any]:
    """What `Target.fit` said; empty of a target that says nothing."""
    path = Path(folder) / TARGET_FACTS
    return read_json(path) if path.is_file() else {}


class Target(ABC):
    """Arrays of tiles to data (n, channels, ...) or (n, size), and back.

    reads : names of the arrays of a tile that are encoded. makes : of those that data is decoded to.
    mirrored : whether a tile that is mirrored and turned is another example. rows_axis : of the arrays that it reads.
    bound : the largest magnitude that data can have, to which predictions of it are clipped; None where there is none.
    """

    reads: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[tuple[str, ...]]
    mirrored: ClassVar[bool] = True
    rows_axis: ClassVar[int] = 1
    bound: ClassVar[float | None] = None

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        """Learn from train rows what `load` needs. Its facts are kept in the job's folder, in `TARGET_FACTS`."""
        return Fitted()

    @classmethod
    @abstractmethod
    def load(cls, folder: Path | str, device: str, precision: str = "fp32") -> Self:
        """Load what `fit` wrote."""

    @abstractmethod
    def encode(self, arrays: Arrays) -> torch.Tensor:
        """Arrays (n, h, w, ...) to data float32, on the CPU: (n, channels, h / factor, w / factor) of a picture."""

    @abstractmethod
    def decode(self, data: torch.Tensor) -> dict[str, np.ndarray]:
        """Data to the arrays of a tile by name, (n, h, w, ...)."""

    def conditions(self, made: Arrays) -> dict[str, np.ndarray]:
        """Of what was decoded the arrays that are conditions as they are, by the condition's name."""
        return {}


class Raster(Target):
    """A target with a place for each pixel, so that a canvas can be woven of it."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Of the data."""

    @property
    @abstractmethod
    def factor(self) -> int:
        """Pixels to a pixel of the data, along a side."""

    @property
    @abstractmethod
    def reach(self) -> int | None:
        """How far a pixel of the data shows in what is decoded, px of the data; None where all of it shows everywhere."""
