"""Where the tissue is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from skimage.filters import threshold_otsu
from skimage.measure import label
from skimage.morphology import remove_small_objects

from histoloom.config import Tissue
from histoloom.data.pixel_box import PixelBox
from histoloom.slides.artefacts import GLASS, PADDING, PEN, find_artefacts, with_fringe
from histoloom.slides.slide import Slide

_STRIP_PX = 1024
_STRIP_LEVEL_PX = 2**26
"""Of a level wider than 65,536 px lower strips are read, so that memory does not grow with it."""
_TOWARDS_GLASS = 0.6
_BIN = 0.005
_MUCH_GLASS = 0.01
_DIMMEST_GLASS, _USUAL_GLASS = 0.06, 0.02
"""Optical densities. Where the commonest density below Otsu's threshold is above the first, it is tissue's, and the slide has no
glass to go by: the second stands in.
"""
FIT_TILES = 24
"""Of so many tiles a slide's stain is fitted."""


@dataclass(frozen=True)
class TissueMap:
    """A coarse mask of tissue.

    mask : (h, w) bool
    downsample : level-0 pixels per mask pixel
    picture : (h, w, 3) uint8, the slide at the same scale
    artefacts : (h, w) uint8, codes of artefacts.py, or None where they weren't looked for
    largest_speck_um2 : area of the largest piece that was too small to count as tissue
    """

    mask: np.ndarray
    downsample: float
    picture: np.ndarray
    artefacts: np.ndarray | None = None
    largest_speck_um2: float = 0.0

    def artefact_fraction(self, artefact: int) -> float:
        """Fraction of the slide that an artefact, PADDING or PEN, covers."""
        return 0.0 if self.artefacts is None else float((self.artefacts == artefact).mean())

    def is_artefact(self) -> np.ndarray:
        """(h, w) bool: padding and pen."""
        return np.zeros_like(self.mask) if self.artefacts is None else np.isin(self.artefacts, (PADDING, PEN))

    def pen_fractions(self, corners_level0_px: np.ndarray, side_level0_px: float) -> np.ndarray:
        """Fraction of pen alone, the same way."""
        half, found = self.downsample / 2, np.zeros_like(self.mask)
        if self.artefacts is not None:
            found = self.artefacts == PEN
        return self._fractions(found, corners_level0_px + half, side_level0_px - 2 * half)

    def pen_in(self, box: PixelBox[float], px: int) -> np.ndarray:
        """(px, px) bool of a square at level 0: pen, and what lies beside it, which has some of its colour."""
        pen = with_fringe(
            np.zeros_like(self.mask, np.uint8) if self.artefacts is None else np.where(self.artefacts == PEN, PEN, 0)
        )
        middles = (np.arange(px) + 0.5) / px
        rows = np.clip(((box.top + middles * box.height) / self.downsample).astype(int), 0, pen.shape[0] - 1)
        columns = np.clip(((box.left + middles * box.width) / self.downsample).astype(int), 0, pen.shape[1] - 1)
        return pen[np.ix_(rows, columns)]

    def artefact_fractions(self, corners_level0_px: np.ndarray, side_level0_px: float) -> np.ndarray:
        """Fraction of padding and pen among the mask's pixels whose middle lies in a square tile, so that what it touches is none."""
        half = self.downsample / 2
        return self._fractions(self.is_artefact(), corners_level0_px + half, side_level0_px - 2 * half)

    def fractions(self, corners_level0_px: np.ndarray, side_level0_px: float) -> np.ndarray:
        """Fraction of tissue in square tiles.

        Parameters
        ----------
        corners_level0_px : (n, 2) upper left corners (x, y).

        Returns
        -------
        (n,) in [0, 1]
        """
        return self._fractions(self.mask, corners_level0_px, side_level0_px)

    def fraction_beyond(self, right_level0_px: float, bottom_level0_px: float) -> float:
        """Fraction of the tissue that lies right of, or below, a place."""
        right, bottom = (int(np.ceil(place / self.downsample)) for place in (right_level0_px, bottom_level0_px))
        return 1 - float(self.mask[:bottom, :right].sum() / max(self.mask.sum(), 1)) if self.mask.any() else 0.0

    def _fractions(self, mask: np.ndarray, corners_level0_px: np.ndarray, side_level0_px: float) -> np.ndarray:
        if len(corners_level0_px) == 0:
            return np.zeros(0)
        h, w = mask.shape
        integral = np.zeros((h + 1, w + 1))
        integral[1:, 1:] = mask.cumsum(0).cumsum(1)
        low = np.floor(corners_level0_px / self.downsample).astype(int)
        high = np.maximum(np.ceil((corners_level0_px + side_level0_px) / self.downsample).astype(int), low + 1)
        x0, y0 = np.clip(low[:, 0], 0, w - 1), np.clip(low[:, 1], 0, h - 1)
        x1, y1 = np.clip(high[:, 0], 1, w), np.clip(high[:, 1], 1, h)
        inside = integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]
        return inside / np.maximum((x1 - x0) * (y1 - y0), 1)


def fullest(fractions: np.ndarray, count: int) -> np.ndarray:
    """Indices of at most `count` tiles with tissue, evenly spread over the fuller half: what is fitted to a slide is fitted to these."""
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
        strip[:] = slide.read(PixelBox(0, y, width, len(strip)).scaled(downsample), downsample)
    return out


def detect_tissue(slide: Slide, config: Tissue) -> TissueMap:
    """Find the tissue of a slide at a coarse scale."""
    downsample = max(config.mpp / slide.mpp, 1.0)
    return find_tissue(read_whole(slide, downsample), downsample, slide.mpp, config)


def find_tissue(picture: np.ndarray, downsample: float, mpp_level0: float, config: Tissue) -> TissueMap:
    """Threshold the optical density of a coarse picture, padding and pen left out.

    The threshold is 0.6 of Otsu's, at least `min_od`, so that blank glass isn't split in two, and at most
    `max_od_above_glass` above the density of glass, so that neither is a slide without glass, nor pale tissue lost beside dark.
    """
    mpp = downsample * mpp_level0
    density = -np.log10((picture.astype(np.float32).mean(-1) + 1) / 256)
    artefacts, dense = np.zeros(density.shape, np.uint8), density > config.min_od
    if config.leave_out:
        codes = {"padding": PADDING, "pen": PEN}
        artefacts = find_artefacts(picture, dense, mpp)
        artefacts[~np.isin(artefacts, [GLASS, *(codes[name] for name in config.leave_out)])] = 0
    dim = artefacts == GLASS
    glass_od = float(np.median(density[dim])) if dim.mean() > _MUCH_GLASS else None
    clean = ~dim & ~(dense & with_fringe(artefacts))
    mask = clean & (density > _threshold(density[clean | dim], glass_od, config))
    mask, largest_speck_um2 = _without_specks(mask, config.min_area_um2, mpp)
    return TissueMap(mask, downsample, picture, artefacts, largest_speck_um2)


def tile_tissue_fraction(picture: np.ndarray, mpp: float, config: Tissue) -> float:
    """Fraction of tissue in a tile (h, w, 3) uint8 of which nobody has the slide: what is denser than usual glass, coarsely."""
    coarse = Image.fromarray(picture).reduce(max(1, min(round(config.mpp / mpp), min(picture.shape[:2]))))
    density = -np.log10((np.asarray(coarse, np.float32).mean(-1) + 1) / 256)
    return float((density > max(_USUAL_GLASS + config.max_od_above_glass, config.min_od)).mean())


def _threshold(density: np.ndarray, glass_od: float | None, config: Tissue) -> float:
    """Between glass and tissue; glass_od where the glass is known, else it is what is commonest below Otsu's threshold."""
    if density.size == 0 or np.ptp(density) == 0:
        return config.min_od
    otsu = threshold_otsu(density)
    if glass_od is None:
        counts, edges = np.histogram(density[density <= otsu], np.arange(0, otsu + _BIN, _BIN))
        commonest = edges[counts.argmax()] + _BIN / 2
        glass_od = commonest if commonest <= _DIMMEST_GLASS else _USUAL_GLASS
    return max(min(_TOWARDS_GLASS * otsu, glass_od + config.max_od_above_glass), config.min_od)


def _without_specks(mask: np.ndarray, min_area_um2: float, mpp: float) -> tuple[np.ndarray, float]:
    """The mask without pieces below an area, and the area of the largest of them."""
    smallest = int(min_area_um2 / mpp**2)
    if smallest <= 1 or not mask.any():
        return mask, 0.0
    kept = remove_small_objects(mask, max_size=smallest - 1)
    specks = np.bincount(label(mask & ~kept, connectivity=1).ravel())[1:]
    return kept, float(specks.max(initial=0)) * mpp**2
