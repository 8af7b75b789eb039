"""Where the tissue is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.filters import threshold_otsu
from skimage.morphology import remove_small_objects

from pipeline.config import Tissue
from pipeline.slides.open import Slide

_STRIP_PX = 1024
_STRIP_LEVEL_PX = 2**26
"""Of a level wider than 65,536 px lower strips are read, so that memory does not grow with it."""
FIT_TILES = 24
"""Of so many tiles a slide's stain is fitted."""


@dataclass(frozen=True)
class TissueMap:
    """A coarse mask of tissue.

    mask : (h, w) bool
    downsample : level-0 pixels per mask pixel
    picture : (h, w, 3) uint8, the slide at the same scale
    """

    mask: np.ndarray
    downsample: float
    picture: np.ndarray

    def fractions(self, corners_level0_px: np.ndarray, side_level0_px: float) -> np.ndarray:
        """Share of tissue in square tiles.

        Parameters
        ----------
        corners_level0_px : (n, 2) upper left corners (x, y).

        Returns
        -------
        (n,) in [0, 1]
        """
        if len(corners_level0_px) == 0:
            return np.zeros(0)
        h, w = self.mask.shape
        integral = np.zeros((h + 1, w + 1))
        integral[1:, 1:] = self.mask.cumsum(0).cumsum(1)
        low = np.floor(corners_level0_px / self.downsample).astype(int)
        high = np.maximum(np.ceil((corners_level0_px + side_level0_px) / self.downsample).astype(int), low + 1)
        x0, y0 = np.clip(low[:, 0], 0, w - 1), np.clip(low[:, 1], 0, h - 1)
        x1, y1 = np.clip(high[:, 0], 1, w), np.clip(high[:, 1], 1, h)
        inside = integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]
        return inside / np.maximum((x1 - x0) * (y1 - y0), 1)


def fullest(fractions: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` tiles with tissue, evenly spread over the fuller half: what is fitted to a slide sees these."""
    order = np.argsort(-fractions, kind="stable")
    order = order[fractions[order] > 0]
    return order[:: max(1, len(order) // (2 * count))][:count]


def read_whole(slide: Slide, downsample: float) -> np.ndarray:
    """The whole slide at a coarse scale, (h, w, 3) uint8, read strip by strip."""
    width, height = max(1, int(slide.width / downsample)), max(1, int(slide.height / downsample))
    level_px = width * slide.shrinkage(downsample)
    rows = max(1, min(_STRIP_PX, int(_STRIP_LEVEL_PX / level_px)))
    out = np.empty((height, width, 3), np.uint8)
    for y in range(0, height, rows):
        strip = out[y : y + rows]
        strip[:] = slide.read(0, y * downsample, width, len(strip), downsample)
    return out


def detect_tissue(slide: Slide, config: Tissue) -> TissueMap:
    """Threshold the optical density at a coarse scale (Otsu, with a floor for blank slides)."""
    downsample = max(config.mpp / slide.mpp, 1.0)
    picture = read_whole(slide, downsample)
    density = -np.log10((picture.astype(np.float32).mean(-1) + 1) / 256)
    threshold = max(threshold_otsu(density) * 0.6, config.min_od) if np.ptp(density) > 0 else config.min_od
    mask = density > threshold
    smallest = int(config.min_area_um2 / config.mpp**2)
    if smallest > 1 and mask.any():
        mask = remove_small_objects(mask, max_size=smallest - 1)
    return TissueMap(mask, downsample, picture)
