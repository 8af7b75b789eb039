"""What is diffused: the arrays of a tile to data of about unit variance, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch

Arrays = Mapping[str, np.ndarray]


class Target(ABC):
    """Arrays of tiles to data (n, channels, ...), and back.

    reads : names of the arrays of a tile that are encoded.
    """

    reads: ClassVar[tuple[str, ...]]

    @classmethod
    @abstractmethod
    def load(cls, folder: Path | str, device: str, precision: str = "fp32") -> Self:
        """Load what `train_autoencoder` wrote."""

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

    @abstractmethod
    def encode(self, arrays: Arrays) -> torch.Tensor:
        """Arrays (n, h, w, ...) to data (n, channels, h / factor, w / factor) float32, on the CPU."""

    @abstractmethod
    def decode(self, data: torch.Tensor) -> dict[str, np.ndarray]:
        """Data to the arrays of a tile by name, (n, h, w, ...)."""
