"""Whether the polygons and spots of a slide lie on it, and label anything."""

from __future__ import annotations

import pandas as pd
import shapely

from histoloom.config import Tile
from histoloom.data.pixel_box import PixelBox
from histoloom.data.slide_entry import SlideEntry
from histoloom.errors import Fault, Note, faults_among
from histoloom.slides.annotate import Annotations, load_polygons_and_spots
from histoloom.slides.open import open_slide
from histoloom.slides.regions import Regions
from histoloom.slides.slide import BadSlide

_SMALL_EXTENT = 0.002
"""Of a slide's sides: all polygons in mm lie within so much of a slide of 0.25 µm/px."""
_LEAST_SHOWN = 0.005
"""A smaller fraction of area beyond the slide is the width of a pen at its border."""


def check_slide_annotations(item: tuple[SlideEntry, Tile, pd.DataFrame | None]) -> list[Fault | Note]:
    """Faults and notes of one slide's annotations; whether the slide itself can be used is not asked."""
    entry, config, spots = item
    try:
        with open_slide(entry.path, entry.mpp, config.max_slide_gpx) as slide:
            bounds = slide.bounds
    except BadSlide:
        bounds = None
    return check_annotations(load_polygons_and_spots(entry, config, spots, bounds), bounds)


def check_annotations(annotations: Annotations, bounds: PixelBox[int] | None) -> list[Fault | Note]:
    """Faults and notes of a slide's polygons and spots.

    Parameters
    ----------
    bounds : what was scanned, at level 0; None where the slide can't be opened.
    """
    config, regions, spots = annotations.config, annotations.regions, annotations.spots
    found: list[Fault | Note] = []
    if annotations.entry.annotations and "polygons" in (config.labels.source, config.masks.source):
        where, found = str(annotations.entry.annotations), list(annotations.found)
        if bounds is not None and not faults_among(found):
            found += check_inside(where, regions, bounds, config) + _check_scale(where, regions, bounds)
        if _drops_all(regions, config) and not faults_among(found):
            problem = "no polygon has a class of tile.labels.classes, so that all tiles of its slide would be dropped."
            remedy = "give classes to what was drawn, or set tile.labels.unlabelled: keep."
            found.append(Fault(where, problem, remedy))
    if spots is not None and bounds is not None:
        found += _check_spots(annotations.entry, config, spots, bounds)
    return found


def _drops_all(regions: Regions, config: Tile) -> bool:
    labels = config.labels
    return labels.source == "polygons" and labels.unlabelled == "drop" and not {*labels.classes} & {*regions.names}


def check_inside(where: str, regions: Regions, frame: PixelBox[int], config: Tile) -> list[Fault | Note]:
    """Say how much of the polygons lies beyond a frame at level 0; a fault, where it is more than params allow."""
    wholly, area = regions.beyond(frame)
    if not wholly and area < _LEAST_SHOWN:
        return []
    fact = f"{wholly:,} of {len(regions):,} polygon(s), and {area:.1%} of their area, lie beyond {_spans(frame)}."
    remedy = (
        "export them of this picture, at full resolution. tile.annotations_origin says where real slides' polygons count "
        "from, tile.max_outside_fraction how much may lie beyond."
    )
    return _outside(where, fact, remedy, max(wholly / len(regions), area), config)


def _check_scale(where: str, regions: Regions, frame: PixelBox[int]) -> list[Fault | Note]:
    """Say that polygons are too small for their slide, as those in mm or in fractions of its sides are."""
    if not len(regions):
        return []
    left, top, right, bottom = shapely.total_bounds(regions.polygons)
    largest = shapely.area(regions.polygons).max()
    fact = f"the largest polygon has {largest:.2g} px², and all lie within {right - left:.3g} x {bottom - top:.3g} px."
    if largest < 1:
        remedy = "export them in px at full resolution, neither in mm nor in fractions of the slide."
        return [Fault(where, fact, remedy)]
    small = right - left < _SMALL_EXTENT * frame.width and bottom - top < _SMALL_EXTENT * frame.height
    said = f"{fact} The slide has {frame.width} x {frame.height} px: look whether they are in px."
    return [Note(where, said)] if small else []


def _check_spots(entry: SlideEntry, config: Tile, spots: pd.DataFrame, frame: PixelBox[int]) -> list[Fault | Note]:
    places = spots[["x_level0_px", "y_level0_px"]].to_numpy(float)
    inside = ((places >= frame[:2]) & (places < (frame.right, frame.bottom))).all(1)
    if inside.all():
        return []
    count, rows = int((~inside).sum()), len(spots)
    fact = (
        f"{count:,} of {rows:,} spot(s) of slide '{entry.slide_id}' lie beyond what was scanned of it, {_spans(frame)}."
    )
    remedy = (
        "state level-0 pixels of this slide, neither µm nor px of a reduced picture. tile.max_outside_fraction says how many "
        "may lie beyond."
    )
    return _outside(str(config.spots), fact, remedy, count / rows, config)


def _spans(frame: PixelBox[int]) -> str:
    return f"x {frame.left} to {frame.right}, y {frame.top} to {frame.bottom} px"


def _outside(where: str, fact: str, remedy: str, fraction: float, config: Tile) -> list[Fault | Note]:
    return [Fault(where, fact, remedy) if fraction > config.max_outside_fraction else Note(where, fact)]
