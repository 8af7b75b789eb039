"""Polygons of classes on a slide, and the rasters that they make.

A pixel is of the polygon that its centre lies in. Small polygons that stand alone have their area as well
(small_areas.py). On 400 random nuclei of 12 px, centres alone are 0.1 % off at downsample 1 and 0.4 % at 4; a majority of
4 x 4 subpixels is 1.3 % and 0.1 % off. On a lattice of nuclei that all meet the pixels alike, both are 7 % off and more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
from rasterio import Affine
from rasterio.features import rasterize
from shapely.geometry import Polygon

from histoloom.data.pixel_box import PixelBox
from histoloom.slides.small_areas import LONGEST_PX, are_small_and_apart, fit_areas, whole_areas

_MANY_POINTS = 1000
"""A polygon of more points is cut at a raster's borders before it is burnt: the cost is its points times the rows."""


@dataclass(frozen=True)
class Regions:
    """Polygons in the order of their file.

    names : the classes that occur.
    kinds : (n,) int, which of `names` each polygon is of.
    polygons : (n,) shapely polygons, level-0 px.
    """

    names: tuple[str, ...]
    kinds: np.ndarray
    polygons: np.ndarray

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Polygon]] = ()) -> Regions:
        names, polygons = [], []
        for name, polygon in pairs:
            names.append(name)
            polygons.append(polygon)
        distinct = tuple(dict.fromkeys(names))
        places = {name: place for place, name in enumerate(distinct)}
        return cls(distinct, np.array([places[name] for name in names], int), np.array(polygons, object))

    def __len__(self) -> int:
        return len(self.polygons)

    def __iter__(self) -> Iterator[tuple[str, Polygon]]:
        return ((self.names[kind], polygon) for kind, polygon in zip(self.kinds, self.polygons))

    def moved(self, x_px: float, y_px: float) -> Regions:
        """The same polygons, so many level-0 pixels further right and down."""
        if not (x_px or y_px):
            return self
        moved = shapely.transform(self.polygons, lambda points: points + np.array([x_px, y_px]))
        return Regions(self.names, self.kinds, moved)

    def class_ids(self, classes: tuple[str, ...], box: PixelBox[float], downsample: float) -> np.ndarray:
        """1 + index in `classes`, 0 outside; where polygons overlap, the later class wins.

        Parameters
        ----------
        box : at level 0.
        downsample : level-0 pixels per pixel of the raster.

        Returns
        -------
        (height, width) uint8; the box's size over `downsample`, rounded.
        """
        ids = np.array([classes.index(name) + 1 if name in classes else 0 for name in self.names], np.uint8)
        hits = self._near(box)
        values = ids[self.kinds[hits]]
        return self._burnt(hits[values > 0], values[values > 0], box, downsample)

    def numbers(self, box: PixelBox[float], downsample: float) -> np.ndarray:
        """1 + the polygon's place, int32, as `class_ids` gives classes; where polygons overlap, the later one wins."""
        hits = self._near(box)
        return self._burnt(hits, (hits + 1).astype(np.int32), box, downsample)

    def beyond(self, frame: PixelBox[float]) -> tuple[int, float]:
        """How many polygons lie wholly beyond a frame at level 0, and which fraction of all polygons' area does."""
        left, top, right, bottom = frame.left, frame.top, frame.right, frame.bottom
        bounds = shapely.bounds(self.polygons).reshape(-1, 4)
        area = shapely.area(self.polygons)
        apart = (bounds[:, 2] <= left) | (bounds[:, 3] <= top) | (bounds[:, 0] >= right) | (bounds[:, 1] >= bottom)
        within = (bounds[:, :2] >= (left, top)).all(1) & (bounds[:, 2:] <= (right, bottom)).all(1)
        kept = np.where(within, area, 0.0)
        cut = ~apart & ~within
        kept[cut] = shapely.area(shapely.intersection(self.polygons[cut], shapely.box(left, top, right, bottom)))
        return int((kept == 0).sum()), float(1 - kept.sum() / area.sum()) if len(self) else 0.0

    def _burnt(self, places: np.ndarray, values: np.ndarray, box: PixelBox[float], downsample: float) -> np.ndarray:
        """The largest of the values of the polygons that a pixel is of."""
        small = self._small(downsample)[places]
        out = _by_centres(self.polygons[places[~small]], values[~small], box, downsample)
        if small.any():
            out = np.maximum(out, self._by_area(places[small], values[small], box, downsample))
        return out

    def _by_area(self, places: np.ndarray, values: np.ndarray, box: PixelBox[float], downsample: float) -> np.ndarray:
        margin = LONGEST_PX + 2  # so that each is whole
        height, width = box.shape_at(downsample)
        left, top = box.left - margin * downsample, box.top - margin * downsample
        wider = PixelBox(left, top, (width + 2 * margin) * downsample, (height + 2 * margin) * downsample)
        polygons = self.polygons[places]
        numbers = _by_centres(polygons, np.arange(1, len(places) + 1, dtype=np.int32), wider, downsample)
        outlines = shapely.transform(polygons, lambda points: (points - (left, top)) / downsample)
        fit_areas(numbers, outlines, whole_areas(shapely.area(outlines), places))
        return np.append(values.dtype.type(0), values)[numbers[margin:-margin, margin:-margin]]

    def _small(self, downsample: float) -> np.ndarray:
        """Which polygons are given their area, at one scale after the other."""
        if downsample not in self._small_at:
            self._small_at.clear()
            self._small_at[downsample] = are_small_and_apart(self.polygons, downsample)
        return self._small_at[downsample]

    @cached_property
    def _small_at(self) -> dict[float, np.ndarray]:
        return {}

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.polygons)

    def _near(self, box: PixelBox[float]) -> np.ndarray:
        """Places of the polygons that may touch a box, in order."""
        frame = shapely.box(box.left, box.top, box.right, box.bottom)
        return np.sort(self._tree.query(frame)) if len(self) else np.empty(0, int)


def _by_centres(polygons: np.ndarray, values: np.ndarray, box: PixelBox[float], downsample: float) -> np.ndarray:
    """The largest of the values of the polygons that a pixel's centre lies in."""
    order = np.argsort(values, kind="stable")
    polygons, values = polygons[order], values[order]
    out = np.zeros(box.shape_at(downsample), values.dtype)
    large = shapely.get_num_coordinates(polygons) > _MANY_POINTS
    if large.any():
        margin = 2 * downsample
        frame = box.left - margin, box.top - margin, box.right + margin, box.bottom + margin
        polygons[large] = shapely.clip_by_rect(polygons[large], *frame)
        there = ~shapely.is_empty(polygons)
        polygons, values = polygons[there], values[there]
    if len(polygons):
        grid = Affine(downsample, 0, box.left, 0, downsample, box.top)
        rasterize(zip(_as_geojson(polygons), values.tolist()), out=out, transform=grid)
    return out


def _as_geojson(polygons: np.ndarray) -> Iterator[dict | Polygon]:
    """What rasterio reads; of many outlines without holes, its own way takes most of the time."""
    plain = (shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON) & (
        shapely.get_num_interior_rings(polygons) == 0
    )
    points = shapely.get_coordinates(polygons)
    ends = np.cumsum(shapely.get_num_coordinates(polygons)).tolist()
    for polygon, simple, start, end in zip(polygons, plain.tolist(), [0, *ends], ends):
        yield {"type": "Polygon", "coordinates": [points[start:end].tolist()]} if simple else polygon
