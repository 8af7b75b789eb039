"""What is dense on a slide and is no tissue: a scanner's padding, and pen."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt, maximum_filter, minimum_filter
from skimage.color import rgb2hsv
from skimage.segmentation import clear_border

PADDING, PEN, GLASS = 1, 2, 3
"""Codes in the map of artefacts; 0 is what may be tissue. GLASS is grey and bright: glass under a dim lamp."""

DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)
"""Optical density of each 8-bit value."""

_GREY = 0.85
"""A pixel is grey where its least dense channel has this fraction of its densest. No stain of tissue has."""
_BLACK = 30
"""Below this value the noise of a JPEG is as large as the differences between channels."""
_BRIGHT = 170
_SOLID_UM = 24.0
"""Width of the thinnest artefact that is looked for, so that a few odd pixels within tissue are none."""
_HUES_OF_FLAT_PADDING = (20, 250)
"""Not H&E's own, so that what is drawn flat in their colours counts as tissue."""
_INK = (
    (20, 130, 0.85),
    (45, 140, 0.9),
    (70, 140, 0.9),
    (215, 25, 0.75),
    (250, 75, 0.75),
    (290, 120, 0.85),
    (345, 140, 0.85),
    (360, 130, 0.85),
)
"""Up to a hue in degrees, the least chroma (largest less smallest value) and the least saturation (chroma over the largest
value) of ink. Either tells it: chroma on glass, saturation over tissue, which darkens it. Solid pieces of stained tissue stay
below both; brown (DAB) reaches higher saturations than other stains."""
_LEAST_CHROMA = 20
"""Below it, saturation is noise."""


def find_artefacts(picture: np.ndarray, dense: np.ndarray, mpp: float) -> np.ndarray:
    """Tell padding and pen from what may be tissue.

    Padding is grey or black, or flat and of any hue but pink, red and violet, and reaches the picture's border. Pen is grey or
    black within the slide, or more colourful than stained tissue of its hue.

    Parameters
    ----------
    picture : (h, w, 3) uint8, a slide at a coarse scale.
    dense : (h, w) bool, what is denser than glass.
    mpp : µm per pixel of the picture.

    Returns
    -------
    (h, w) uint8 of codes; 0 wherever the slide isn't dense.
    """
    low, high = picture.min(-1), picture.max(-1)
    grey = dense & ((high < _BLACK) | (DENSITY[high] > _GREY * DENSITY[low]))
    ink, flat = _coloured(picture, dense & ~grey)
    half = max(1, round(_SOLID_UM / 2 / mpp))
    solid = _opened(grey | ink | flat, (2 * half + 1) / np.sqrt(np.pi))
    plain = solid & (grey | flat) & ~ink
    within = clear_border(plain) > 0
    found = np.zeros(dense.shape, np.uint8)
    glass = plain & grey & (high >= _BRIGHT)
    for code, where in ((PEN, solid & (within & (high < _BRIGHT) | ink)), (PADDING, plain & ~within & ~glass)):
        found[where | (dense & _widened(where & flat, 1))] = code  # what lies beside a flat pixel has its colour
    found[glass] = GLASS
    return found


def with_fringe(artefacts: np.ndarray) -> np.ndarray:
    """(h, w) bool: padding and pen, and the pixels beside them, which have some of their colour."""
    return _widened(np.isin(artefacts, (PADDING, PEN)), 1)


def _coloured(picture: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels that are more colourful than tissue of their hue, and flat ones of any hue but pink, red and violet."""
    ink, flat = np.zeros_like(where), np.zeros_like(where)
    colours = picture[where]
    if not len(colours):
        return ink, flat
    hue, saturation, _ = rgb2hsv(colours[None])[0].T
    chroma = np.ptp(colours, axis=1)
    hues, least_chroma, least_saturation = np.array(_INK).T
    band = np.minimum(np.searchsorted(hues, 360 * hue, side="right"), len(hues) - 1)
    saturated = (saturation >= least_saturation[band]) & (chroma >= _LEAST_CHROMA)
    ink[where] = saturated | (chroma >= least_chroma[band])
    first, last = _HUES_OF_FLAT_PADDING
    flat[where] = (360 * hue >= first) & (360 * hue < last)
    if flat.any():
        size = (3, 3, 1)
        spread = maximum_filter(picture, size, mode="nearest") - minimum_filter(picture, size, mode="nearest")
        flat &= spread.max(-1) <= 1
    return ink, flat


def _opened(mask: np.ndarray, radius_px: float) -> np.ndarray:
    """What of a mask discs of this radius fit into, in whichever direction it lies."""
    if mask.all():
        return mask
    fits = distance_transform_edt(mask) > radius_px
    return mask & (distance_transform_edt(~fits) <= radius_px) if fits.any() else fits


def _widened(mask: np.ndarray, by_px: int) -> np.ndarray:
    return maximum_filter(mask.view(np.uint8), 2 * by_px + 1, mode="nearest").view(bool)
