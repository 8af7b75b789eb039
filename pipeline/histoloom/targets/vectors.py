"""Vectors: what a condition is made of, such as a label or an embedding, as the data itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from histoloom.conditions.condition import FitJob, Fitted
from histoloom.registry import registered
from histoloom.targets.target import Arrays, Target, read_facts

VECTOR = "vector"
"""The array of a store that such data is decoded to."""


@dataclass(frozen=True)
class Vectors(Target):
    """The array (n, size) that a condition makes. Values that are 0 or 1 are diffused as -1 and 1.

    condition : its name.
    """

    condition: str
    makes = (VECTOR,)
    mirrored = False

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        return Fitted({"condition": job.params.train_denoiser.target.condition})

    @classmethod
    def load(cls, folder: Path | str, device: str, precision: str = "fp32") -> Self:
        return cls(**read_facts(folder))

    @property
    def _hot(self) -> bool:
        return registered("condition", self.condition).hot

    def encode(self, arrays: Arrays) -> torch.Tensor:
        values = torch.from_numpy(arrays[self.condition]).float()
        return values * 2 - 1 if self._hot else values

    def decode(self, data: torch.Tensor) -> dict[str, np.ndarray]:
        values = (data.float() + 1) / 2 if self._hot else data.float()
        return {VECTOR: values.cpu().numpy()}

    def conditions(self, made: Arrays) -> dict[str, np.ndarray]:
        return {self.condition: made[VECTOR]}
