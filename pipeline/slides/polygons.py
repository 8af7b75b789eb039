"""Polygons of a woven slide's classes, as QuPath reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from shapely.geometry import Polygon, box, mapping
from skimage.measure import find_contours

from pipeline.slides.annotate import Region

_LEAST_PX = 9
"""Smaller areas are left out of what is traced from a raster."""


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
    """The outlines of each class; a hole is what lies inside an outline and is not of the class."""
    out: list[Region] = []
    for number, name in enumerate(classes, 1):
        rings = find_contours(np.pad((raster == number).astype(np.float32), 1), 0.5)
        areas = [Polygon(ring[:, ::-1] - 0.5).buffer(0) for ring in rings if len(ring) > 3]
        areas = sorted((a for a in areas if a.area >= _LEAST_PX), key=lambda a: -a.area)
        whole = None
        for area in areas:  # from large to small, a ring inside what is covered so far is a hole of it
            whole = area if whole is None else whole.symmetric_difference(area)
        if whole is not None:
            out += [(name, part) for part in getattr(whole, "geoms", [whole])]
    return out
