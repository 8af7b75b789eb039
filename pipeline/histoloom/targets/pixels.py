"""Pictures as they are, as the first diffusion models had them (Ho et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch

from histoloom.targets.target import Arrays, Target


def to_model(images: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) float in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(values: torch.Tensor) -> np.ndarray:
    """(n, 3, h, w) in [-1, 1] to (n, h, w, 3) uint8."""
    out = ((values.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return out.permute(0, 2, 3, 1).cpu().numpy()


@dataclass(frozen=True)
class Pixels(Target):
    """Pixels in [-1, 1]; there is no autoencoder."""

    reads = ("image",)
    channels = 3
    factor = 1
    reach = 0

    @classmethod
    def load(cls, folder: Path | str, device: str, precision: str = "fp32") -> Self:
        return cls()

    def encode(self, arrays: Arrays) -> torch.Tensor:
        return to_model(arrays["image"])

    def decode(self, data: torch.Tensor) -> dict[str, np.ndarray]:
        return {"image": to_images(data)}
