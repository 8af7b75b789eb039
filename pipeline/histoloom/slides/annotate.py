"""Labels and masks of tiles, from QuPath's GeoJSON polygons, raster masks, spot tables or the slide's own label."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial import KDTree

from histoloom.config import Tile
from histoloom.data.nuclei_layout import outlines
from histoloom.data.pixel_box import PixelBox
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.store import UNKNOWN
from histoloom.errors import Fault, Note
from histoloom.slides.file_header import read_format
from histoloom.slides.geojson import read_geojson
from histoloom.slides.open import slide_sha256
from histoloom.slides.predicted import PredictedMask, read_predicted
from histoloom.slides.rasters import Raster, read_raster
from histoloom.slides.regions import Regions
from histoloom.slides.slide import BadSlide

_STEP_PX = 4
"""Every so many pixels the nearest spot is asked for; a border between regions is no finer."""


@dataclass(frozen=True)
class PlacedRaster:
    """Ids of a slide, or of the part of it that was scanned: beyond such a part, 0.

    corner : (x, y) of the part that the raster shows, level-0 px; None where it shows the whole slide.
    """

    raster: Raster
    corner: tuple[int, int] | None = None

    def nearest(self, box: PixelBox[float], downsample: float) -> np.ndarray:
        """Ids of a box at level 0, (height, width), at the nearest pixel."""
        if self.corner is None:
            return self.raster.nearest(box, downsample)
        (height, width), (x, y) = box.shape_at(downsample), (box.left - self.corner[0], box.top - self.corner[1])
        found = self.raster.nearest(PixelBox(x, y, box.width, box.height), downsample)
        columns, rows = x + (np.arange(width) + 0.5) * downsample, y + (np.arange(height) + 0.5) * downsample
        inside = [(at >= 0) & (at < side) for at, side in zip((rows, columns), self.raster.shape)]
        return np.where(np.outer(*inside), found, found.dtype.type(0))


@dataclass
class Annotations:
    """The annotations of one slide, ready to be asked about any box of it.

    Boxes are at level 0, and sizes of what is returned are as those of `Slide.read`.

    predicted : a learner's mask of the slide, for where nobody has annotated.
    found : faults and notes of the polygons' file.
    """

    config: Tile
    entry: SlideEntry
    regions: Regions
    raster: PlacedRaster | None
    instances: PlacedRaster | None
    spots: pd.DataFrame | None
    predicted: PredictedMask | None = None
    found: tuple[Fault | Note, ...] = ()

    def ids(self, classes: tuple[str, ...], source: str, box: PixelBox[float], downsample: float) -> np.ndarray:
        """Class ids of a box, (height, width) uint8, from 'polygons' or 'raster'."""
        if source == "polygons":
            return self.regions.class_ids(classes, box, downsample)
        if self.raster is None:
            if self.instances is None:
                return np.full(box.shape_at(downsample), UNKNOWN, np.uint8)
            return (self.instances.nearest(box, downsample) > 0).astype(np.uint8)
        return self.raster.nearest(box, downsample).astype(np.uint8)

    def regions_of_spots(
        self, classes: tuple[str, ...], box: PixelBox[float], downsample: float, mpp: float
    ) -> np.ndarray:
        """Ids (height, width) uint8 of the label that the nearest spot has, to a few pixels: 0 where it is none of `classes`.

        Where no spot is within `labels.spot_radius_um` it is unknown.

        Parameters
        ----------
        mpp : of level 0.
        """
        height, width = box.shape_at(downsample)
        out = np.full((height, width), UNKNOWN, np.uint8)
        if self.spots is None or len(self.spots) == 0:
            return out
        numbers = {name: 1 + place for place, name in enumerate(classes)}
        ids = np.array([*(numbers.get(name, 0) for name in self.spots["label"]), UNKNOWN], np.uint8)
        rows, columns = (
            first + (np.arange(0, side, _STEP_PX) + min(_STEP_PX, side) / 2) * downsample
            for first, side in ((box.top, height), (box.left, width))
        )
        places = np.stack(np.meshgrid(columns, rows), -1)
        tree = KDTree(self.spots[["x_level0_px", "y_level0_px"]].to_numpy(float))
        # The number that stands for none is how many spots there are.
        _, nearest = tree.query(places, distance_upper_bound=self.config.labels.spot_radius_um / mpp)
        return ids[nearest].repeat(_STEP_PX, 0).repeat(_STEP_PX, 1)[:height, :width]

    def instance_ids(self, box: PixelBox[float], downsample: float) -> tuple[np.ndarray, np.ndarray] | None:
        """Numbers of the box's nuclei (h, w) int32, and their outlines (h, w) uint8 as the whole slide shows them."""
        if self.instances is None:
            return None
        numbers = self.instances.nearest(box.grown(downsample), downsample).astype(np.int32)
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
    entry: SlideEntry,
    config: Tile,
    spots: pd.DataFrame | None,
    size_px: tuple[int, int],
    bounds: PixelBox[int] | None = None,
    mpp: float | None = None,
) -> Annotations:
    """Read the annotations that the manifest names for a slide.

    Parameters
    ----------
    spots : of all slides.
    size_px : width and height of the slide at level 0.
    bounds : the part of it that was scanned (Slide.bounds); None is all of it.
    mpp : of level 0; None leaves predicted masks out.

    Raises
    ------
    BadSlide
        when a raster cannot be read, has another size than the slide, or holds ids beyond the stated classes.
    """
    bounds = bounds or PixelBox(0, 0, *size_px)
    instances = None if entry.instances is None else _placed(entry.instances, size_px, bounds)
    raster = None if entry.mask is None else _placed(entry.mask, size_px, bounds)
    largest = raster.raster.largest if raster else min(instances.raster.largest, 1) if instances else 0
    for source, classes in ((config.masks.source, config.masks.classes), (config.labels.source, config.labels.classes)):
        if source == "raster" and largest > len(classes):
            raise BadSlide(
                f"{entry.slide_id}: its mask holds class id {largest}, and params name {len(classes)} "
                "classes. Add the class, or mend the mask."
            )
    found = load_polygons_and_spots(entry, config, spots, bounds)
    return replace(found, raster=raster, instances=instances, predicted=_predicted(entry, config, mpp))


def _predicted(entry: SlideEntry, config: Tile, mpp: float | None) -> PredictedMask | None:
    masks = config.masks
    if entry.predicted is None or mpp is None or not masks.drawn:
        return None
    return read_predicted(entry.predicted, masks.classes, masks.least_certainty, slide_sha256(entry.path), mpp)


def load_polygons_and_spots(
    entry: SlideEntry, config: Tile, spots: pd.DataFrame | None, bounds: PixelBox[int] | None
) -> Annotations:
    """What asks nothing of the slide's pixels; `bounds` is None where it can't be opened."""
    regions = Regions.of()
    found: list[Fault | Note] = []
    if entry.annotations is not None:
        regions, found = _read_regions(entry.annotations, config, bounds)
    mine = spots[spots["slide_id"] == entry.slide_id] if spots is not None else None
    return Annotations(config, entry, regions, None, None, mine, found=tuple(found))


def _placed(path: Path, size_px: tuple[int, int], bounds: PixelBox[int]) -> PlacedRaster:
    """A raster of the slide's level-0 size at its corner, or one of its bounds' size at theirs."""
    scanned = bounds.width, bounds.height
    if scanned == size_px:
        return PlacedRaster(read_raster(path, *size_px))
    if _size_of(path) == scanned:
        return PlacedRaster(read_raster(path, *scanned), bounds[:2])
    try:
        return PlacedRaster(read_raster(path, *size_px))
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


def _read_regions(path: Path, config: Tile, bounds: PixelBox[int] | None) -> tuple[Regions, list[Fault | Note]]:
    """The polygons of a file in level-0 px, whichever corner it counts from."""
    classes = config.labels.classes + config.masks.classes
    regions, found = read_geojson(path, classes, config.cell_outline)
    if bounds is not None and config.annotations_origin == "bounds":
        regions = regions.moved(*bounds[:2])
    return regions, found
