"""Labels and masks of tiles, from QuPath's GeoJSON polygons, raster masks, spot tables or the slide's own label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import shapely

from histoloom.config import Tile
from histoloom.data.manifest import SlideEntry
from histoloom.data.nuclei_layout import outlines
from histoloom.errors import Fault, Note, faults_among
from histoloom.slides.geojson import read_geojson
from histoloom.slides.open import BadSlide
from histoloom.slides.pixel_format import read_format
from histoloom.slides.rasters import Raster, read_raster
from histoloom.slides.regions import Regions

Frame = tuple[int, int, int, int]
"""x and y of the upper left corner, width and height, level-0 px."""
_SMALL_EXTENT = 0.002
"""Of a slide's sides: all polygons in mm lie within so much of a slide of 0.25 µm/px."""
_LEAST_SHOWN = 0.005
"""A smaller share of area beyond the slide is the width of a pen at its border."""


def check_annotations(annotations: Annotations, bounds: Frame | None) -> list[Fault | Note]:
    """Faults and notes of the polygons and spots that are stated about a slide; `bounds` is None where it can't be opened."""
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


def read_regions(path: Path, config: Tile, bounds: Frame | None) -> tuple[Regions, list[Fault | Note]]:
    """The polygons of a slide in level-0 px, whichever corner their file counts from."""
    classes = config.labels.classes + config.masks.classes
    regions, found = read_geojson(path, classes, config.cell_outline)
    if bounds is not None and config.annotations_origin == "bounds":
        regions = regions.moved(*bounds[:2])
    return regions, found


def check_inside(where: str, regions: Regions, frame: Frame, config: Tile) -> list[Fault | Note]:
    """Say how much of the polygons lies beyond a frame (x, y, width, height); a fault, where it is more than params allow."""
    x, y, width, height = frame
    wholly, area = regions.beyond(x, y, x + width, y + height)
    if not wholly and area < _LEAST_SHOWN:
        return []
    fact = (
        f"{wholly:,} of {len(regions):,} polygon(s), and {area:.1%} of their area, lie beyond x {x} to {x + width}, "
        f"y {y} to {y + height} px."
    )
    remedy = (
        "export them of this picture, at full resolution. tile.annotations_origin says where real slides' polygons count "
        "from, tile.max_outside_fraction how much may lie beyond."
    )
    return _outside(where, fact, remedy, max(wholly / len(regions), area), config)


def _check_scale(where: str, regions: Regions, frame: Frame) -> list[Fault | Note]:
    """Say that polygons are too small for their slide, as those in mm or in shares of its sides are."""
    if not len(regions):
        return []
    left, top, right, bottom = shapely.total_bounds(regions.polygons)
    largest = shapely.area(regions.polygons).max()
    fact = f"the largest polygon has {largest:.2g} px², and all lie within {right - left:.3g} x {bottom - top:.3g} px."
    if largest < 1:
        return [Fault(where, fact, "export them in px at full resolution, neither in mm nor in shares of the slide.")]
    small = right - left < _SMALL_EXTENT * frame[2] and bottom - top < _SMALL_EXTENT * frame[3]
    return (
        [Note(where, f"{fact} The slide has {frame[2]} x {frame[3]} px: look whether they are in px.")] if small else []
    )


def _check_spots(entry: SlideEntry, config: Tile, spots: pd.DataFrame, frame: Frame) -> list[Fault | Note]:
    x, y, width, height = frame
    places = spots[["x_level0_px", "y_level0_px"]].to_numpy(float)
    inside = ((places >= (x, y)) & (places < (x + width, y + height))).all(1)
    if inside.all():
        return []
    count, rows = int((~inside).sum()), len(spots)
    fact = (
        f"{count:,} of {rows:,} spot(s) of slide '{entry.slide_id}' lie beyond what was scanned of it, x {x} to {x + width}, "
        f"y {y} to {y + height} px."
    )
    remedy = (
        "state level-0 pixels of this slide, neither µm nor px of a reduced picture. tile.max_outside_fraction says how many "
        "may lie beyond."
    )
    return _outside(str(config.spots), fact, remedy, count / rows, config)


def _outside(where: str, fact: str, remedy: str, share: float, config: Tile) -> list[Fault | Note]:
    return [Fault(where, fact, remedy) if share > config.max_outside_fraction else Note(where, fact)]


@dataclass(frozen=True)
class PlacedRaster:
    """Ids of a slide, or of the part of it that was scanned: beyond such a part, 0.

    x, y : where its corner lies, level-0 px.
    """

    raster: Raster
    x: int = 0
    y: int = 0
    whole: bool = True

    def nearest(self, box: tuple[float, float, int, int], downsample: float) -> np.ndarray:
        x, y, width, height = box
        x, y = x - self.x, y - self.y
        found = self.raster.nearest((x, y, width, height), downsample)
        if self.whole:
            return found
        columns, rows = x + (np.arange(width) + 0.5) * downsample, y + (np.arange(height) + 0.5) * downsample
        inside = [(at >= 0) & (at < side) for at, side in zip((rows, columns), self.raster.shape)]
        return np.where(np.outer(*inside), found, found.dtype.type(0))


@dataclass
class Annotations:
    """What is stated about one slide, ready to be asked about any box of it.

    found : faults and notes of the polygons' file.
    """

    config: Tile
    entry: SlideEntry
    regions: Regions
    raster: PlacedRaster | None
    instances: PlacedRaster | None
    spots: pd.DataFrame | None
    found: tuple[Fault | Note, ...] = ()

    def ids(
        self, classes: tuple[str, ...], source: str, box: tuple[float, float, int, int], downsample: float
    ) -> np.ndarray:
        """Class ids of a box (x_level0_px, y_level0_px, width_px, height_px)."""
        if source == "polygons":
            return self.regions.class_ids(classes, box, downsample)
        if self.raster is not None:
            return self.raster.nearest(box, downsample).astype(np.uint8)
        assert self.instances is not None, "a raster of ids comes of a mask or of instances"
        return (self.instances.nearest(box, downsample) > 0).astype(np.uint8)

    def instance_ids(
        self, box: tuple[float, float, int, int], downsample: float
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Numbers of the box's nuclei (h, w) int32, and their outlines (h, w) uint8 as the whole slide shows them."""
        if self.instances is None:
            return None
        x, y, width, height = box
        wider = (x - downsample, y - downsample, width + 2, height + 2)
        numbers = self.instances.nearest(wider, downsample).astype(np.int32)
        return numbers[1:-1, 1:-1], outlines(numbers)[1:-1, 1:-1]

    def spot(self, x_level0_px: float, y_level0_px: float, mpp: float) -> pd.Series | None:
        """The nearest spot, if its centre is within `labels.spot_radius_um`."""
        if self.spots is None or len(self.spots) == 0:
            return None
        places = self.spots[["x_level0_px", "y_level0_px"]].to_numpy(float)
        distance_um = np.hypot(*(places - (x_level0_px, y_level0_px)).T) * mpp
        nearest = int(distance_um.argmin())
        return self.spots.iloc[nearest] if distance_um[nearest] <= self.config.labels.spot_radius_um else None


def load_annotations(
    entry: SlideEntry, config: Tile, spots, width_px: int, height_px: int, bounds: Frame | None = None
) -> Annotations:
    """Read what the manifest states about a slide of this level-0 size.

    Parameters
    ----------
    bounds : the part of it that was scanned (Slide.bounds); None is all of it.

    Raises
    ------
    BadSlide
        when a raster cannot be read, has another size than the slide, or holds ids beyond the stated classes.
    """
    size = width_px, height_px
    bounds = bounds or (0, 0, *size)
    instances = _placed(entry.instances, size, bounds)
    raster = _placed(entry.mask, size, bounds)
    largest = raster.raster.largest if raster else min(instances.raster.largest, 1) if instances else 0
    for source, classes in ((config.masks.source, config.masks.classes), (config.labels.source, config.labels.classes)):
        if source == "raster" and largest > len(classes):
            raise BadSlide(
                f"{entry.slide_id}: its mask holds class id {largest}, and params name {len(classes)} "
                "classes. Add the class, or mend the mask."
            )
    return replace(load_polygons_and_spots(entry, config, spots, bounds), raster=raster, instances=instances)


def load_polygons_and_spots(entry: SlideEntry, config: Tile, spots, bounds: Frame | None) -> Annotations:
    """What asks nothing of the slide's pixels; `bounds` is None where it can't be opened."""
    regions, found = (
        (Regions.of(), []) if entry.annotations is None else read_regions(entry.annotations, config, bounds)
    )
    mine = spots[spots["slide_id"] == entry.slide_id] if spots is not None else None
    return Annotations(config, entry, regions, None, None, mine, tuple(found))


def _placed(path: Path | None, size: tuple[int, int], bounds: Frame) -> PlacedRaster | None:
    """A raster of the slide's level-0 size at its corner, or one of its bounds' size at theirs."""
    x, y, *scanned = bounds
    if path is None:
        return None
    if tuple(scanned) == size:
        return PlacedRaster(read_raster(path, *size))
    if _size_of(path) == tuple(scanned):
        return PlacedRaster(read_raster(path, *scanned), x, y, whole=False)
    try:
        return PlacedRaster(read_raster(path, *size))
    except BadSlide as error:
        raise BadSlide(
            f"{error} The size of what was scanned will do as well, {scanned[0]} x {scanned[1]} px."
        ) from error


def _size_of(path: Path) -> tuple[int, int] | None:
    try:
        found = read_format(path)
    except (OSError, BadSlide):
        return None
    return found.width, found.height
