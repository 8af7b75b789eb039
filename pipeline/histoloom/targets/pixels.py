"""Pictures as they are, as the first diffusion models had them (Ho et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch.nn import functional as F

from histoloom.conditions.condition import FitJob, Fitted
from histoloom.targets.target import Arrays, Raster, read_facts


def to_model(images: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) float in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(values: torch.Tensor) -> np.ndarray:
    """(n, 3, h, w) in [-1, 1] to (n, h, w, 3) uint8."""
    out = ((values.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return out.permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True)
class Pixels(Raster):
    """Pixels in [-1, 1]; there is no autoencoder.

    factor : where it exceeds 1, each pixel of the data is the mean of factor x factor pixels, and is decoded by bicubic
        interpolation. So begin cascades (Ho et al. 2022).
    """

    factor: int = 1
    reads = ("image",)
    makes = ("image",)
    bound = 1.0
    channels = 3

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        return Fitted({} if job.params.factor == 1 else {"factor": job.params.factor})

    @classmethod
    def load(cls, folder: Path | str, device: str, precision: str = "fp32") -> Self:
        return cls(read_facts(folder).get("factor", 1))

    @property
    def reach(self) -> int:
        return 0 if self.factor == 1 else 2

    def encode(self, arrays: Arrays) -> torch.Tensor:
        images = to_model(arrays["image"])
        return images if self.factor == 1 else F.avg_pool2d(images, self.factor)

    def decode(self, data: torch.Tensor) -> dict[str, np.ndarray]:
        return {"image": to_images(enlarged(data, self.factor))}


def enlarged(data: torch.Tensor, factor: int) -> torch.Tensor:
    """(n, c, h, w) by bicubic interpolation to (n, c, factor h, factor w)."""
    return data if factor == 1 else F.interpolate(data.float(), scale_factor=factor, mode="bicubic")
