"""The mask as a map: the share that each class has of each latent pixel, and the share of nuclear outlines.

Background has a channel of its own, so that a mask of background alone differs from the null, which is zeros.
The outlines part nuclei that touch (Shrivastava & Fletcher 2023, NASDM).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

BACKGROUND, EDGE = "background", "edge"


@dataclass(frozen=True)
class MaskEncoder:
    """channels : background, the classes in the order of their ids, and `edge` where outlines are used."""

    channels: tuple[str, ...]
    latent_px: int
    name = "mask"
    shape = "map"

    def arrays(self, _: pd.DataFrame, tiles: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
        """(n, channels, latent_px, latent_px) float16 in [0, 1]."""
        mask = tiles("mask")
        out = [
            shares(mask == index, self.latent_px, self.latent_px)
            for index in range(len(self.channels) - (EDGE in self.channels))
        ]
        if EDGE in self.channels:
            out.append(shares(tiles("edge") > 0, self.latent_px, self.latent_px))
        return {self.name: np.stack(out, 1)}


def shares(hits: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(n, h, w) bool to (n, rows, columns) float16, the share of hits in each cell."""
    n, h, w = hits.shape
    return hits.reshape(n, rows, h // rows, columns, w // columns).mean((2, 4)).astype(np.float16)
