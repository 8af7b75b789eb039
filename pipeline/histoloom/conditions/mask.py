"""The mask as a map: the fraction that each class has of each latent pixel, and the fraction of nuclear outlines.

Background has a channel of its own, so that a mask of background alone differs from the null, which is zeros.
The outlines part nuclei that touch (Shrivastava & Fletcher 2023, NASDM). Where a latent pixel is larger than what the mask
shows, `detail` parts it into detail x detail cells, each with channels of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from histoloom.conditions.condition import Arrays, Condition, ReadTiles, Source
from histoloom.conditions.symmetries import apply_symmetry
from histoloom.config import Params
from histoloom.config.channels import EDGE, mask_channels, read_channels


@dataclass(frozen=True)
class MaskCondition(Condition):
    """channel_names : as `mask_channels` names them. px : side of the data that the map lies beside."""

    channel_names: tuple[str, ...]
    px: int
    name = "mask"
    shape = "map"
    reads = ("mask",)
    carries = ("instance", "edge")

    @property
    def channels(self) -> tuple[str, ...]:
        return self.channel_names

    @classmethod
    def known_channels(cls, params: Params) -> tuple[str, ...]:
        return mask_channels(params.tile.masks.classes, edges=params.encode.edges, detail=params.encode.mask_detail)

    @classmethod
    def load(cls, source: Source) -> Self:
        return cls(source.channels, source.px)

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        """(n, channels, px, px) float16 in [0, 1]."""
        edges = EDGE in read_channels(self.channels)[0]
        edge = tiles("edge") if edges else None
        return {self.name: mask_map(tiles("mask"), edge, self.channels, self.px, self.px)}


def mask_map(
    ids: np.ndarray, edge: np.ndarray | None, channels: tuple[str, ...], rows: int, columns: int
) -> np.ndarray:
    """Class ids and outlines (n, h, w) to the map (n, channels, rows, columns) float16; `edge` is read if a channel is one."""
    names, detail = read_channels(channels)
    hits = [_hits(number, name, ids, edge) for number, name in enumerate(names)]
    return np.concatenate([_folded(cell_fractions(h, rows * detail, columns * detail), detail) for h in hits], 1)


def _hits(number: int, name: str, ids: np.ndarray, edge: np.ndarray | None) -> np.ndarray:
    """Where a channel's class or an outline is, (n, h, w) bool."""
    if name != EDGE:
        return np.equal(ids, number)
    assert edge is not None, "a mask with a channel of outlines needs them"
    return np.greater(edge, 0)


def turned_maps(arrays: np.ndarray, symmetries: np.ndarray, channels: tuple[str, ...]) -> np.ndarray:
    """Maps (n, channels, h, w), each under its symmetry (n,); the cells of a pixel are turned with it."""
    detail = read_channels(channels)[1]
    n, c, h, w = arrays.shape
    cells = arrays.reshape(n, -1, detail, detail, h, w).transpose(0, 1, 4, 2, 5, 3)
    fine = cells.reshape(n, -1, h * detail, w * detail)
    turned = np.empty_like(fine)
    for symmetry in np.unique(symmetries):
        own = symmetries == symmetry
        turned[own] = apply_symmetry(fine[own], int(symmetry))
    return _folded(turned.reshape(-1, h * detail, w * detail), detail).reshape(n, c, h, w)


def _folded(fine: np.ndarray, detail: int) -> np.ndarray:
    """(n, h * detail, w * detail) to (n, detail * detail, h, w)."""
    n, h, w = fine.shape
    cells = fine.reshape(n, h // detail, detail, w // detail, detail).transpose(0, 2, 4, 1, 3)
    return cells.reshape(n, detail * detail, h // detail, w // detail)


def cell_fractions(hits: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(n, h, w) bool to (n, rows, columns) float16, the fraction of hits in each cell."""
    n, h, w = hits.shape
    return hits.reshape(n, rows, h // rows, columns, w // columns).mean((2, 4)).astype(np.float16)
