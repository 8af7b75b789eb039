"""Which tiles of a slide are taken, what is left out, and why a slide has none."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace

import numpy as np

from histoloom.config import Tile
from histoloom.data.pixel_box import PixelBox
from histoloom.data.splits import inside_region
from histoloom.slides.artefacts import PADDING, PEN
from histoloom.slides.grid import Corner, grid
from histoloom.slides.slide import BadSlide, Slide
from histoloom.slides.tissue import TissueMap


class NoTiles(BadSlide):
    """A slide that no tile is taken from."""

    def __init__(self, problem: str, remedy: str):
        self.problem, self.remedy = problem, remedy
        super().__init__(f"{problem} {remedy[:1].upper()}{remedy[1:]}")


@dataclass(frozen=True)
class Choice:
    """The tiles of one scale.

    mpp : the scale.
    fractions : corner of each tile that is taken to its fraction of tissue, in the order of the grid.
    of_grid : how many tiles the whole grid has.
    best : the largest fraction of tissue in a tile of the grid.
    with_artefacts : tiles with tissue enough that are left out for padding or pen.
    in_gaps : tiles with tissue enough that are left out because they reach into a gap between regions.
    beyond : fraction of the tissue that lies at the right and lower border and in no tile.
    penned : the tiles with tissue enough and some pen, but no more than tile.repair.max_pen, to their fraction of tissue.
    """

    mpp: float
    fractions: dict[Corner, float]
    of_grid: int
    best: float
    with_artefacts: int
    in_gaps: int
    beyond: float
    penned: dict[Corner, float] = field(default_factory=dict)

    @property
    def corners(self) -> list[Corner]:
        """Of the tiles that are taken."""
        return [*self.fractions]

    def repaired(self, corners: Container[Corner]) -> Choice:
        """The choice with those of its penned tiles that are repaired."""
        more = {c: value for c, value in self.penned.items() if c in corners and c not in self.fractions}
        fractions = dict(sorted((self.fractions | more).items(), key=lambda item: (item[0][1], item[0][0])))
        return replace(self, fractions=fractions, with_artefacts=self.with_artefacts - len(more))

    def without(self, corners: Container[Corner]) -> Choice:
        """The choice without some of its tiles."""
        return replace(self, fractions={c: value for c, value in self.fractions.items() if c not in corners})


def choose_tiles(slide: Slide, tissue: TissueMap, config: Tile, mpp: float) -> Choice:
    """Take the tiles of one scale that have tissue enough, little padding and pen, and keep off the gaps between regions."""
    downsample = mpp / slide.mpp
    side = config.tile_px * downsample
    size = int(slide.width / downsample), int(slide.height / downsample)
    least_px = max(1, int(np.ceil(1 / downsample))) if config.edge == "shift" else None
    corners = list(grid(*size, config.tile_px, config.stride_px, least_px))
    places = np.array(corners, float).reshape(-1, 2) * downsample
    fractions = tissue.fractions(places, side)
    enough = fractions >= config.tissue.min_fraction
    clean = tissue.artefact_fractions(places, side) <= config.tissue.max_artefact
    inside = _inside_regions(slide, places, side, config)
    penned, least = tissue.pen_fractions(places, side), config.tissue.max_artefact
    only_pen = tissue.artefact_fractions(places, side) - penned <= least
    to_repair = np.flatnonzero(enough & inside & only_pen & (penned > 0) & (penned <= config.repair.max_pen))
    kept = np.flatnonzero(enough & clean & inside)
    return Choice(
        mpp,
        {corners[i]: float(fractions[i]) for i in kept},
        len(corners),
        float(fractions.max(initial=0)),
        int((enough & ~clean).sum()),
        int((enough & clean & ~inside).sum()),
        tissue.fraction_beyond(*(places.max(0) + side)) if len(places) else 1.0,
        {corners[i]: float(fractions[i]) for i in to_repair},
    )


def _inside_regions(slide: Slide, places: np.ndarray, side: float, config: Tile) -> np.ndarray:
    """Of each tile, whether it keeps off the gaps between regions; places are upper left corners at level 0."""
    if config.split.group != "region":
        return np.ones(len(places), bool)
    grid = config.split.region
    tiles = (PixelBox(x, y, side, side) for x, y in places.tolist())
    return np.array([inside_region(tile, slide.size, grid, grid.gap_um / slide.mpp) for tile in tiles], bool)


def check_choice(slide: Slide, tissue: TissueMap, config: Tile, choice: Choice) -> None:
    """Say why a slide gives no tile.

    Raises
    ------
    NoTiles
        with the reason and what helps.
    """
    if choice.fractions:
        return
    least, remedy = config.tissue.min_fraction, _LOOK
    if not choice.of_grid:
        size = " x ".join(str(int(side * slide.mpp / config.mpp)) for side in (slide.width, slide.height))
        problem = f"{size} px at tile.mpp {config.mpp:g} are smaller than a tile of {config.tile_px} px."
        remedy = "choose a smaller tile.tile_px, or remove the slide."
    elif not tissue.mask.any():
        problem, remedy = _without_tissue(tissue, config)
    elif choice.in_gaps:
        problem = f"all {choice.in_gaps} tiles with tissue enough reach into the gaps between regions."
        remedy = "choose fewer tile.split.region.rows and cols, a smaller gap_um, or a smaller tile.tile_px."
    elif choice.with_artefacts:
        most = f"tile.tissue.max_artefact ({config.tissue.max_artefact:g})"
        problem = f"all {choice.with_artefacts} tiles with tissue enough have more padding or pen than {most}."
    else:
        problem = (
            f"no tile has tissue enough. The best has {choice.best:.2g}, and tile.tissue.min_fraction is {least:g}."
        )
        remedy = "lower it, or choose a smaller tile.tile_px, or tile.edge: shift where the tissue lies at the border."
    raise NoTiles(f"{slide.path.name}: {problem}", remedy)


_LOOK = (
    "look at the slide. If what was taken for pen is a blue or green stain, set tile.tissue.leave_out: [padding]; "
    "if it is a grey or black one, leave_out: []."
)


def _without_tissue(tissue: TissueMap, config: Tile) -> tuple[str, str]:
    padding, pen = tissue.artefact_fraction(PADDING), tissue.artefact_fraction(PEN)
    if tissue.largest_speck_um2:
        why = f"The largest piece has {tissue.largest_speck_um2:.0f} µm², and tile.tissue.min_area_um2 is {config.tissue.min_area_um2:g}."
        remedy = "lower it, or remove the slide."
    elif padding or pen:
        why, remedy = f"There is nothing beside glass, padding ({padding:.0%} of the slide) and pen ({pen:.0%}).", _LOOK
    else:
        least = f"{config.tissue.min_od:g} (tile.tissue.min_od)"
        why = f"There is nothing but glass: no place has an optical density above {least}."
        remedy = "lower it if the tissue is very pale, or remove the slide."
    return f"no tile has tissue enough. {why}", remedy
