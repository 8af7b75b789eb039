"""Regions of a slide that are to be made anew: read, grouped by what can be woven on its own, and written for a canvas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely

from histoloom.data.pixel_box import PixelBox
from histoloom.errors import HistoloomError, refuse_faults
from histoloom.progress import console
from histoloom.slides.geojson import read_geojson
from histoloom.slides.regions import Regions

_BAND_PX = 1024


class Group(NamedTuple):
    """Regions that are woven together: the box that their windows see, px of the slide, and the regions, px from its corner."""

    box: PixelBox[int]
    regions: Regions | None


def regions_in_px(path: Path, downsample: float, size: tuple[int, int]) -> Regions:
    """The polygons of a file, in px of a slide of (height, width), cut at its border. What lies beyond is said.

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
    moved = shapely.transform(found.polygons, lambda points: points / downsample)
    inside = shapely.intersection(moved, shapely.box(0, 0, size[1], size[0]))
    parts = shapely.get_parts(inside)
    parts = parts[shapely.area(parts) > 0]  # an edge that is shared with the border is a line
    cut = Regions(("region",), np.zeros(len(parts), int), parts)
    bands = (PixelBox(0, top, size[1], min(_BAND_PX, size[0] - top)) for top in range(0, size[0], _BAND_PX))
    if not any(cut.numbers(band, 1.0).any() for band in bands):
        raise HistoloomError(
            f"The polygons of {path} cover no pixel of the slide. Export them in px at full resolution, neither in mm nor in degrees."
        )
    beyond = int((shapely.area(inside) == 0).sum())
    if beyond:
        console.print(
            f"{path}: {beyond:,} of {len(moved):,} polygons lie beyond the slide and are left out", markup=False
        )
    if (crossing := int((shapely.area(moved) - shapely.area(inside) > 1).sum()) - beyond) > 0:
        console.print(f"{path}: {crossing:,} of {len(moved):,} polygons are cut at the slide's border", markup=False)
    return cut


def grouped(regions: Regions, size: tuple[int, int], window: int, factor: int) -> list[Group]:
    """Regions by what their windows see: a window's side around each. Those that see the same pixels are of one group.

    Boxes begin at whole latent px, and end there or where the slide of (height, width) px does. They may overlap, where the box of a group
    surrounds another.
    """
    bounds = shapely.bounds(regions.polygons)
    near = shapely.box(*(bounds + np.array([-window, -window, window, window])).T)
    islands = shapely.get_parts(shapely.union_all(near))
    island, region = shapely.STRtree(shapely.centroid(near)).query(islands, predicate="contains")
    found = []
    for number in range(len(islands)):
        own = np.sort(region[island == number])
        low, high = bounds[own, :2].min(0) - window, bounds[own, 2:].max(0) + window
        left, top = np.maximum(0, np.floor(low / factor) * factor).astype(int).tolist()
        right, bottom = np.minimum(np.ceil(high / factor) * factor, size[::-1]).astype(int).tolist()
        polygons = shapely.transform(regions.polygons[own], lambda points, corner=(left, top): points - corner)
        box = PixelBox(left, top, right - left, bottom - top)
        found.append(Group(box, Regions(regions.names, regions.kinds[own], polygons)))
    return sorted(found, key=lambda group: (group.box.top, group.box.left, group.box.bottom, group.box.right))


def write_regions(regions: Regions, folder: Path) -> Path:
    """A file of the polygons in a folder, for a canvas."""
    features = [
        {"type": "Feature", "geometry": json.loads(shapely.to_geojson(one)), "properties": {"objectType": "annotation"}}
        for one in regions.polygons
    ]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "regions.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    return path
