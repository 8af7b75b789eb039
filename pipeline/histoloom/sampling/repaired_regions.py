"""Regions of a slide that are to be made anew: read, parted into what can be woven on its own, and written for a canvas."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from histoloom.data.pixel_box import PixelBox
from histoloom.errors import HistoloomError, refuse_faults
from histoloom.slides.geojson import read_geojson
from histoloom.slides.regions import Regions


def regions_in_px(path: Path, downsample: float, size: tuple[int, int]) -> Regions:
    """The polygons of a file, in px of the canvas.

    Raises
    ------
    ManifestFaults
        with every fault of the file.
    HistoloomError
        when it has no polygon, or they cover no pixel.
    """
    found, faults = read_geojson(path, None)
    refuse_faults(faults)
    if not len(found):
        raise HistoloomError(f"{path} holds no polygon: draw what is to be made anew.")
    moved = replace(found, polygons=shapely.transform(found.polygons, lambda points: points / downsample))
    inside = shapely.intersection(moved.polygons, shapely.box(0, 0, size[1], size[0]))
    if shapely.area(inside).sum() < 1:
        raise HistoloomError(
            f"The polygons of {path} cover no pixel of the slide. Export them in px at full resolution, neither in mm nor in degrees."
        )
    return moved


def boxes_of(regions: Regions, size: tuple[int, int], window: int, factor: int) -> list[PixelBox[int]]:
    """Of a slide of (height, width) px, what the windows see that make the regions: a window's side around each.

    Boxes that overlap are joined. They begin at whole latent px, and end there or where the slide does.
    """
    bounds = shapely.bounds(regions.polygons[_within(regions, PixelBox(0, 0, size[1], size[0]))])
    near = shapely.union_all(shapely.box(*(bounds + np.array([-window, -window, window, window])).T))
    while True:
        parts = shapely.get_parts(near)
        joined = shapely.union_all(shapely.envelope(parts))
        if len(shapely.get_parts(joined)) == len(parts):
            break
        near = joined
    height, width = size
    found = []
    for left, top, right, bottom in shapely.bounds(shapely.get_parts(joined)):
        left, top = (max(0, int(np.floor(side / factor)) * factor) for side in (left, top))
        right, bottom = (int(np.ceil(side / factor)) * factor for side in (right, bottom))
        found.append(PixelBox(left, top, min(right, width) - left, min(bottom, height) - top))
    return sorted(found, key=lambda box: (box.top, box.left))


def write_regions(regions: Regions, box: PixelBox[int], folder: Path) -> Path:
    """A file of the polygons in a box, px from its corner, for the canvas."""
    moved = shapely.transform(regions.polygons[_within(regions, box)], lambda points: points - (box.left, box.top))
    features = [
        {"type": "Feature", "geometry": json.loads(shapely.to_geojson(one)), "properties": {"objectType": "annotation"}}
        for one in moved
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "regions.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path


def _within(regions: Regions, box: PixelBox[int]) -> np.ndarray:
    """(n,) bool, which polygons have a part in a box."""
    return shapely.intersects(regions.polygons, shapely.box(box.left, box.top, box.right, box.bottom))
