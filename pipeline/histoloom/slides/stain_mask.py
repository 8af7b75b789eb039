"""Masks of slides that nobody has annotated: nuclei and clear space, told by their stain.

Colour deconvolution (Ruifrok & Johnston 2001) against the slide's own glass, thresholds fitted once per slide, and a
watershed that parts nuclei that touch. It is a classical segmentation: it merges crowded nuclei, misses pale ones, and
takes dark dirt for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.color import hed_from_rgb
from skimage.feature import peak_local_max
from skimage.filters import threshold_multiotsu, threshold_otsu
from skimage.measure import label
from skimage.morphology import remove_small_holes, remove_small_objects
from skimage.segmentation import watershed

from histoloom.config.tile import STAINED
from histoloom.data.nuclei_layout import outlines

NUCLEUS, CLEAR = STAINED
REACH_UM = 24.0
"""How far around a box is looked at, so that a nucleus on its border is whole."""
_SMOOTH_UM = 0.7
_AROUND_UM = 8.0
_APART_UM = 3.0
_LEAST_NUCLEUS_UM2 = 8.0
_MOST_HOLE_UM2 = 12.0
_LEAST_CLEAR_UM2 = 60.0
_CLEAR_DENSITY = 0.12
_LEAST_SPREAD = 0.05
_NOTHING_DRAWN: Mapping[str, np.ndarray] = MappingProxyType({})


@dataclass(frozen=True)
class Segmentation:
    """What a picture shows: class ids (h, w) uint8, numbers of nuclei (h, w) int32, eosin (h, w) float32."""

    mask: np.ndarray
    nuclei: np.ndarray
    eosin: np.ndarray

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """`mask`, `instance` and `edge` as the store has them."""
        return {"mask": self.mask, "instance": self.nuclei, "edge": outlines(self.nuclei)}

    def crop(self, at: tuple[slice, slice]) -> Segmentation:
        return Segmentation(self.mask[at], self.nuclei[at], self.eosin[at])


@dataclass(frozen=True)
class StainMask:
    """What was fitted to a slide.

    glass : (3,) the light that its glass lets through.
    dark, darker : the least haematoxylin of a nucleus, and the least by which it exceeds what is around it; either will do.
    pale, strong : a third of its ground has less eosin than `pale`, a third more than `strong`.
    """

    classes: tuple[str, ...]
    glass: np.ndarray
    dark: float
    darker: float
    pale: float
    strong: float

    def segment(
        self, picture: np.ndarray, mpp: float, drawn: Mapping[str, np.ndarray] = _NOTHING_DRAWN
    ) -> Segmentation:
        """Segment a picture (h, w, 3) uint8 of this scale.

        drawn : class to where somebody drew it (h, w) bool; the stain is not asked about it.
        """
        density = _density(picture, self.glass)
        stains = _stains(density, mpp)
        nuclei = _apart(drawn[NUCLEUS] if NUCLEUS in drawn else self._nuclei(stains[..., 0], mpp), mpp)
        mask = np.zeros(nuclei.shape, np.uint8)
        if CLEAR in self.classes:
            told = _without_specks(_smooth(density, mpp).max(2) < _CLEAR_DENSITY, _LEAST_CLEAR_UM2, mpp)
            mask[drawn.get(CLEAR, told)] = 1 + self.classes.index(CLEAR)
        if NUCLEUS in self.classes:
            mask[nuclei > 0] = 1 + self.classes.index(NUCLEUS)
        return Segmentation(mask, nuclei, stains[..., 1])

    def words(self, found: Segmentation) -> str:
        """How many nuclei, how strong the eosin between them is, how much is clear: 'many nuclei, pale ground'."""
        nuclei, clear = found.nuclei > 0, np.zeros(found.mask.shape, bool)
        if CLEAR in self.classes:
            clear = found.mask == 1 + self.classes.index(CLEAR)
        ground = found.eosin[~nuclei & ~clear]
        eosin = float(ground.mean()) if ground.size else 0.0
        words = [
            ("few", "some", "many", "crowded")[int(np.searchsorted((0.08, 0.18, 0.3), nuclei.mean()))] + " nuclei",
            "pale ground" if eosin < self.pale else "pink ground" if eosin > self.strong else "ground",
        ]
        if clear.mean() >= 0.05:
            words.append(("much " if clear.mean() >= 0.25 else "some ") + "open space")
        return ", ".join(words)

    def _nuclei(self, haematoxylin: np.ndarray, mpp: float) -> np.ndarray:
        hits = (haematoxylin > self.dark) | (_contrast(haematoxylin, mpp) > self.darker)
        return remove_small_holes(_without_specks(hits, _LEAST_NUCLEUS_UM2, mpp), max_size=_px(_MOST_HOLE_UM2, mpp))


def fit_stain_mask(classes: tuple[str, ...], sample: np.ndarray, mpp: float) -> StainMask:
    """Fit to a slide, from tiles of its tissue (n, h, w, 3) uint8.

    Glass is what the brightest pixels show. Nuclei are the uppermost of three classes of haematoxylin, or of two of its
    contrast (Otsu 1979). Where there is no stain to speak of, nothing is a nucleus.
    """
    glass = np.percentile(sample.reshape(-1, 3), 99, axis=0).clip(1)
    stains = np.stack([_stains(_density(tile, glass), mpp) for tile in sample])
    haematoxylin = stains[..., 0]
    nothing = StainMask(classes, glass, *[float("inf")] * 4)
    if np.ptp(haematoxylin) < _LEAST_SPREAD:
        return nothing
    try:
        dark = float(threshold_multiotsu(haematoxylin, 3)[-1])
    except ValueError:  # fewer shades than classes: a drawing
        return nothing
    darker = float(threshold_otsu(np.stack([_contrast(tile, mpp) for tile in haematoxylin])))
    pale, strong = (float(v) for v in np.quantile(stains[..., 1][haematoxylin < dark], (1 / 3, 2 / 3)))
    return StainMask(classes, glass, dark, darker, pale, strong)


def _apart(hits: np.ndarray, mpp: float) -> np.ndarray:
    """Nuclei that touch, parted and numbered."""
    depth = gaussian_filter(distance_transform_edt(hits), _SMOOTH_UM / mpp)
    peaks = peak_local_max(depth, min_distance=max(1, round(_APART_UM / mpp)), labels=label(hits), exclude_border=0)
    seeds = np.zeros(hits.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return watershed(-depth, seeds, mask=hits).astype(np.int32)


def _density(picture: np.ndarray, glass: np.ndarray) -> np.ndarray:
    """Optical density (h, w, 3), 0 where as bright as glass."""
    return np.maximum(-np.log((picture.astype(np.float32) + 1) / (glass.astype(np.float32) + 1)), 0)


def _stains(density: np.ndarray, mpp: float) -> np.ndarray:
    return _smooth(density @ hed_from_rgb.astype(np.float32), mpp)


def _contrast(haematoxylin: np.ndarray, mpp: float) -> np.ndarray:
    return haematoxylin - gaussian_filter(haematoxylin, _AROUND_UM / mpp)


def _smooth(values: np.ndarray, mpp: float) -> np.ndarray:
    return gaussian_filter(values, (_SMOOTH_UM / mpp, _SMOOTH_UM / mpp, 0))


def _px(area_um2: float, mpp: float) -> int:
    return int(area_um2 / mpp**2)


def _without_specks(hits: np.ndarray, least_um2: float, mpp: float) -> np.ndarray:
    return remove_small_objects(hits, max_size=_px(least_um2, mpp))
