"""The normaliser of a slide's stain, fitted to the squares of the slide that hold most tissue."""

from __future__ import annotations

import numpy as np

from histoloom.data.pixel_box import PixelBox
from histoloom.slides import stain
from histoloom.slides.slide import Slide
from histoloom.slides.tissue import FIT_TILES, TissueMap, fullest


def fit_slide(
    slide: Slide, tissue: TissueMap | None, kind: str, px: int, downsample: float
) -> stain.Normaliser | stain.RememberedColours:
    """As `tile` fits it.

    Parameters
    ----------
    tissue : where it is; not asked for under 'none'. kind : as `tile.stain` states it. px : side of a square. downsample : level-0 px to a px.
    """
    if kind == "none":
        return stain.fit("none", np.empty(0))
    assert tissue is not None, "a normaliser is fitted to tissue"
    side, corner = px * downsample, slide.bounds
    columns, rows = (max(1, int(length / side)) for length in (corner.width, corner.height))
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2)
    places = grid * side + (corner.left, corner.top)
    chosen = fullest(tissue.fractions(places, side), FIT_TILES)
    boxes = [PixelBox(float(x), float(y), side, side) for x, y in places[chosen]]
    sample = [slide.read(box, downsample) for box in boxes]
    return stain.fit(kind, np.stack(sample) if sample else np.empty((0, 1, 1, 3), np.uint8)).for_many()
