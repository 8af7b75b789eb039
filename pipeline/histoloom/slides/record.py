"""What is written down of a slide."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class LeftOut(TypedDict):
    """What is left out of a slide: columns of `slides.csv`.

    tissue_fraction, padding_fraction, pen_fraction : of the slide's area.
    with_artefacts, in_gaps : tiles with tissue enough that padding, pen or gaps between regions exclude.
    tissue_beyond_grid : fraction of the tissue, at the right and lower border.
    with_tissue, out_of_focus : tiles with tissue enough, and those of them that are blurred; of slides that were cut.
    """

    tissue_fraction: float
    padding_fraction: float
    pen_fraction: float
    with_artefacts: int
    in_gaps: int
    tissue_beyond_grid: float
    with_tissue: NotRequired[int]
    out_of_focus: NotRequired[int]


class Scan(TypedDict):
    """Scale and size of a slide at level 0, who states the scale, and the corner of what was scanned."""

    mpp_level0: float
    mpp_source: str
    width_px: int
    height_px: int
    bounds_x_level0_px: int
    bounds_y_level0_px: int


class SlideRecord(LeftOut, Scan):
    """What is written down of a slide that was cut.

    hidden : split to the number of tiles, of tile.mpp, whose labels the study may not see.
    stain : what the normalisation says of itself.
    """

    tiles: int
    hidden: dict[str, int]
    stain: str
