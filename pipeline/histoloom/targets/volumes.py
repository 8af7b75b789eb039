"""Volumes: stacks of sections of one channel."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from histoloom.conditions.condition import FitJob, Fitted
from histoloom.data.tile_sets.arrays import VOLUME
from histoloom.errors import HistoloomError
from histoloom.targets.target import Arrays, Target, read_facts


@dataclass(frozen=True)
class Volumes(Target):
    """The array `volume` (n, d, h, w) uint8 of a store, in [-1, 1].

    factor : along a side, of the voxels that are channels of one place of the data: data are (n, factor^3, d / factor, h / factor,
        w / factor), and nothing is lost.
    """

    factor: int = 1
    reads = (VOLUME,)
    makes = (VOLUME,)
    rows_axis = 2
    bound = 1.0

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        return Fitted({} if job.params.factor == 1 else {"factor": job.params.factor})

    @classmethod
    def load(cls, folder: Path | str, device: str, precision: str = "fp32") -> Self:
        return cls(read_facts(folder).get("factor", 1))

    def encode(self, arrays: Arrays) -> torch.Tensor:
        n, *sides = arrays[VOLUME].shape
        if any(side % self.factor for side in sides):
            raise HistoloomError(f"Sides of volumes, {sides}, must be multiples of train_denoiser.target.factor.")
        d, h, w = (side // self.factor for side in sides)
        cells = torch.from_numpy(arrays[VOLUME]).reshape(n, d, self.factor, h, self.factor, w, self.factor)
        return cells.permute(0, 2, 4, 6, 1, 3, 5).reshape(n, -1, d, h, w).float() / 127.5 - 1

    def decode(self, data: torch.Tensor) -> dict[str, np.ndarray]:
        n, _, d, h, w = data.shape
        f = self.factor
        cells = ((data.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).reshape(n, f, f, f, d, h, w)
        return {VOLUME: cells.permute(0, 4, 1, 5, 2, 6, 3).reshape(n, d * f, h * f, w * f).cpu().numpy()}
