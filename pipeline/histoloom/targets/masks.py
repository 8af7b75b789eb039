"""Masks: the class of each pixel, so that layouts are made, or found in a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from scipy.ndimage import label

from histoloom.conditions.condition import FitJob, Fitted
from histoloom.conditions.mask import cell_fractions
from histoloom.targets.target import Arrays, Raster, read_facts

Coding = Literal["one_hot", "bits"]


@dataclass(frozen=True)
class Masks(Raster):
    """Class ids as channels of -1 and 1.

    classes : without background, which is 0. factor : a pixel of the data is the class that most of its factor x factor pixels have.
    coding : a channel a class, or the bits of the class's number (Chen et al. 2023, "Analog bits").
    least_px : islands of a class with fewer pixels of the tile become background when masks are made.
    """

    classes: int
    factor: int = 1
    coding: Coding = "one_hot"
    least_px: int = 0
    reads: ClassVar[tuple[str, ...]] = ("mask",)
    makes: ClassVar[tuple[str, ...]] = ("mask",)
    bound = 1.0

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        config, count = job.params.train_denoiser.target, len(job.params.tile.masks.classes)
        return Fitted(
            {"classes": count, "factor": job.params.factor, "coding": config.coding, "least_px": config.least_px}
        )

    @classmethod
    def load(cls, folder: Path | str, device: str, precision: str = "fp32") -> Self:
        return cls(**read_facts(folder))

    @property
    def channels(self) -> int:
        return self.code_size

    @property
    def reach(self) -> int:
        """As far as the widest island that is cleaned away."""
        return -(-self.least_px // self.factor**2)

    @property
    def code_size(self) -> int:
        """Channels that state a pixel's class."""
        return self.classes + 1 if self.coding == "one_hot" else self.classes.bit_length()

    def encode(self, arrays: Arrays) -> torch.Tensor:
        ids = coarse(arrays["mask"], self.classes, self.factor)
        return torch.from_numpy(self._bits(ids)).permute(0, 3, 1, 2).float() * 2 - 1

    def _bits(self, ids: np.ndarray) -> np.ndarray:
        """(...) to (..., code_size), 0 and 1."""
        numbers = np.arange(self.code_size)
        return ids[..., None] == numbers if self.coding == "one_hot" else ids[..., None] >> numbers & 1

    def decode(self, data: torch.Tensor) -> dict[str, np.ndarray]:
        return {"mask": self.classes_of(data).repeat(self.factor, 1).repeat(self.factor, 2)}

    def classes_of(self, data: torch.Tensor) -> np.ndarray:
        """Data to the class ids of its own pixels, (n, h, w) uint8: of all codes the nearest."""
        codes = torch.from_numpy(self._bits(np.arange(self.classes + 1))).to(data.device).float() * 2 - 1
        likeness = torch.einsum("nchw,kc->nkhw", data.float(), codes)
        ids = likeness.argmax(1).to(torch.uint8).cpu().numpy()
        return cleaned(ids, self.reach) if self.reach > 1 else ids


def cleaned(ids: np.ndarray, least: int) -> np.ndarray:
    """Class ids (n, h, w) without islands of a class that have fewer than `least` pixels. What touches the border goes on beyond it, and stays."""
    out = ids.copy()
    for mask in out:
        for of_class in np.unique(mask[mask > 0]):
            islands, _ = label(mask == of_class)
            small = np.bincount(islands.ravel()) < least
            small[[0, *np.unique(np.r_[islands[[0, -1]].ravel(), islands[:, [0, -1]].ravel()])]] = False
            mask[small[islands]] = 0
    return out


def coarse(ids: np.ndarray, classes: int, factor: int) -> np.ndarray:
    """Class ids (n, h, w) to those that most pixels of each cell have, (n, h / factor, w / factor)."""
    if factor == 1:
        return ids
    height, width = (side // factor for side in ids.shape[1:])
    shares = np.stack([cell_fractions(ids == c, height, width) for c in range(classes + 1)])
    return shares.argmax(0).astype(np.uint8)
