"""Polygons of a woven slide's classes, as QuPath reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely
from rasterio.features import shapes
from shapely.geometry import Polygon, box, mapping, shape

from histoloom.slides.regions import Regions


def write_polygons(
    path: Path, regions: Regions, raster: np.ndarray | None, classes: tuple[str, ...], size: tuple[int, int]
) -> None:
    """Write the regions, cut at the slide's borders, or those that a raster of class ids shows.

    Coordinates are px of the slide, from its upper left corner; pixel (0, 0) is the square from (0, 0) to (1, 1).

    Parameters
    ----------
    size : (height, width) of the slide, px.
    """
    frame = box(0, 0, size[1], size[0])
    traced = (
        ((name, area.intersection(frame)) for name, area in regions) if raster is None else _traced(raster, classes)
    )
    features = [
        {
            "type": "Feature",
            "geometry": mapping(part),
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for name, area in traced
        for part in _parts(area)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def _traced(raster: np.ndarray, classes: tuple[str, ...]) -> Iterator[tuple[str, Polygon]]:
    """The outlines of each area of each class, along its pixels' borders, so that they are read as they were."""
    known = (raster > 0) & (raster <= len(classes))
    for outline, number in shapes(raster.astype(np.uint8, copy=False), mask=known, connectivity=4):
        yield classes[int(number) - 1], shapely.make_valid(shape(outline), method="structure")


def _parts(area: shapely.Geometry) -> Iterator[Polygon]:
    """The polygons of a geometry; a cut may leave lines and points beside them, which have no area."""
    for part in getattr(area, "geoms", [area]):
        if part.geom_type == "MultiPolygon":
            yield from part.geoms
        elif part.geom_type == "Polygon" and not part.is_empty:
            yield part
