"""Polygons of a woven slide's classes, as QuPath reads them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import shapely
from rasterio.features import shapes
from shapely import affinity
from shapely.geometry import Polygon, box, mapping, shape

from histoloom.data.pixel_box import PixelBox
from histoloom.slides.pyramid import ReadBox
from histoloom.slides.regions import Regions

_BAND_PX = 2048


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


def write_traced(
    path: Path, read: ReadBox, size: tuple[int, int], classes: tuple[str, ...], scale: float = 1.0
) -> dict[str, int]:
    """Write the regions of a raster of class ids that is read band by band; those that reach over several bands are joined.

    Parameters
    ----------
    size : (height, width), px. scale : what coordinates are multiplied by.

    Returns
    -------
    How many regions of each class.
    """
    counts = dict.fromkeys(classes, 0)
    with path.open("w", encoding="utf-8") as stream:
        stream.write('{"type": "FeatureCollection", "features": [')
        for name, part in _traced_in_bands(read, size, classes):
            feature = {
                "type": "Feature",
                "geometry": mapping(affinity.scale(part, scale, scale, origin=(0, 0))),
                "properties": {"objectType": "annotation", "classification": {"name": name}},
            }
            stream.write((", " if any(counts.values()) else "") + json.dumps(feature))
            counts[name] += 1
        stream.write("]}")
    return counts


def _traced_in_bands(read: ReadBox, size: tuple[int, int], classes: tuple[str, ...]) -> Iterator[tuple[str, Polygon]]:
    height, width = size
    open_: dict[str, list[Polygon]] = {name: [] for name in classes}
    for top in range(0, height, _BAND_PX):
        rows = min(_BAND_PX, height - top)
        found: dict[str, list[Polygon]] = {name: [] for name in classes}
        for name, area in _traced(read(PixelBox(0, top, width, rows))[..., 0], classes):
            found[name] += _parts(affinity.translate(area, 0, top))
        for name, parts in found.items():
            above = {number for number, part in enumerate(parts) if part.bounds[1] <= top}
            joined = [*_parts(shapely.union_all([*open_[name], *(parts[number] for number in above)]))]
            open_[name] = []
            for part in [*joined, *(part for number, part in enumerate(parts) if number not in above)]:
                if part.bounds[3] >= top + rows and top + rows < height:
                    open_[name].append(part)
                else:
                    yield name, part


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
