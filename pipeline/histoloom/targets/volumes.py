"""Volumes: stacks of sections of one channel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from histoloom.targets.target import Arrays, Target

VOLUME = "volume"


@dataclass(frozen=True)
class Volumes(Target):
    """The array `volume` (n, d, h, w) uint8 of a store, as (n, 1, d, h, w) in [-1, 1]."""

    reads = (VOLUME,)
    makes = (VOLUME,)
    mirrored = False
    bound = 1.0

    @classmethod
    def load(cls, folder: Path | str, device: str, precision: str = "fp32") -> Self:
        return cls()

    def encode(self, arrays: Arrays) -> torch.Tensor:
        return torch.from_numpy(arrays[VOLUME])[:, None].float() / 127.5 - 1

    def decode(self, data: torch.Tensor) -> dict[str, np.ndarray]:
        values = ((data[:, 0].float().clamp(-1, 1) + 1) * 127.5).round()
        return {VOLUME: values.to(torch.uint8).cpu().numpy()}
