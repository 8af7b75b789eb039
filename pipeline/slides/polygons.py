"""Polygons of a woven slide's classes, as QuPath reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.ndimage import find_objects, label
from shapely.geometry import Polygon, box, mapping
from skimage.measure import find_contours

from pipeline.slides.annotate import Region


def write_polygons(
    path: Path, regions: list[Region], raster: np.ndarray | None, classes: tuple[str, ...], size: tuple[int, int]
) -> None:
    """Write the regions, cut at the slide's borders, or those that a raster of class ids shows.

    Parameters
    ----------
    size : (height, width) of the slide, px.
    """
    frame = box(0, 0, size[1], size[0])
    traced = regions if raster is None else _traced(raster, classes)
    cut = [(name, area.intersection(frame)) for name, area in traced]
    features = [
        {
            "type": "Feature",
            "geometry": mapping(area),
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }
        for name, area in cut
        if not area.is_empty and area.geom_type in ("Polygon", "MultiPolygon")
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def _traced(raster: np.ndarray, classes: tuple[str, ...]) -> list[Region]:
    """The outlines of each area of each class: its longest ring, and the others as holes."""
    out: list[Region] = []
    for number, name in enumerate(classes, 1):
        areas, _ = label(raster == number)
        for value, place in enumerate(find_objects(areas), 1):
            here = np.pad((areas[place] == value).astype(np.float32), 1)
            corner = np.array([place[1].start, place[0].start]) - 0.5
            rings = sorted(find_contours(here, 0.5), key=lambda ring: -Polygon(ring).area)
            outline, *holes = (ring[:, ::-1] + corner for ring in rings)
            area = Polygon(outline, [hole for hole in holes if len(hole) > 3]).buffer(0)
            out += [(name, part) for part in getattr(area, "geoms", [area]) if part.area > 0]
    return out
