"""How many islands of each class a tile's mask has, as a vector: a model of masks is told how many nuclei there are to be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from scipy.ndimage import label

from histoloom.conditions.condition import Arrays, Condition, ReadTiles, Source
from histoloom.config import Params
from histoloom.data.manifest import Manifest
from histoloom.data.store import UNKNOWN
from histoloom.errors import Fault, Note, key_fault

_PX = 1000
"""Counts are of as many pixels, so that they mean the same for tiles of any size."""


@dataclass(frozen=True)
class CountsCondition(Condition):
    """classes : of the mask, without background."""

    classes: tuple[str, ...]
    name = "counts"
    shape = "vector"
    reads = ("mask",)

    @property
    def channels(self) -> tuple[str, ...]:
        return (*self.classes, "given")

    @classmethod
    def check(cls, params: Params, manifest: Manifest) -> Iterator[Fault | Note]:
        if params.tile.masks.source == "none":
            problem = "it has counts, which are of masks, and tile.masks.source is none."
            yield key_fault("train_denoiser.conditions", problem, "name a source, or take counts out.")

    @classmethod
    def known_channels(cls, params: Params) -> tuple[str, ...]:
        return (*params.tile.masks.classes, "given")

    @classmethod
    def load(cls, source: Source) -> Self:
        return cls(source.channels[:-1])

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        """ln(1 + islands in 1,000 known px) of each class, and whether anything is known of the mask."""
        masks = tiles("mask")
        counts = np.array([islands(mask, len(self.classes)) for mask in masks], float).reshape(
            len(masks), len(self.classes)
        )
        seen = (masks != UNKNOWN).sum((1, 2))[:, None]
        known = seen > 0
        told = np.where(known, np.log1p(counts * _PX / np.maximum(seen, 1)), 0)
        return {self.name: np.concatenate([told, known], 1).astype(np.float32)}


def islands(mask: np.ndarray, classes: int) -> list[int]:
    """How many islands each class has in a mask (h, w) of ids; pixels that touch at a corner alone are apart."""
    return [label(mask == number)[1] for number in range(1, classes + 1)]
