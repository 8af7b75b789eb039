"""Labels and masks of tiles, from QuPath's GeoJSON polygons, raster masks, spot tables or the slide's own label."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from shapely.errors import ShapelyError
from shapely.geometry import Polygon, shape
from shapely.validation import explain_validity

from pipeline.config import Tile
from pipeline.data.layouts import outlines
from pipeline.data.manifest import Manifest, SlideEntry
from pipeline.errors import Fault
from pipeline.slides.open import BadSlide
from pipeline.slides.rasters import Raster, read_raster

Region = tuple[str, Polygon]


def read_polygons(path: Path, classes: tuple[str, ...] | None) -> tuple[list[Region], list[Fault]]:
    """Read a QuPath GeoJSON: (class, polygon) in level-0 pixels, and the faults found; a row is a feature's number.

    Where `classes` is None any class will do, and none."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
        features = loaded["features"] if isinstance(loaded, dict) else loaded
        features = list(features)
    except (ValueError, KeyError, TypeError) as error:
        return [], [Fault(str(path), f"it is not GeoJSON ({error}).", "export it from QuPath as GeoJSON.")]
    regions, faults = [], []
    for number, feature in enumerate(features, 1):
        try:
            name = "" if classes is None else feature["properties"]["classification"]["name"]
            if not isinstance(name, str):
                raise TypeError(f"the class is {name!r}")
            geometry = shape(feature["geometry"])
        except (KeyError, TypeError, ValueError, AttributeError, ShapelyError) as error:
            faults.append(
                Fault(
                    str(path),
                    f"the feature has no class or no geometry ({error!r}).",
                    "give it a class in QuPath, or delete it.",
                    number,
                )
            )
            continue
        if classes is not None and name not in classes:
            near = difflib.get_close_matches(name, classes, 1)
            hint = f"did you mean '{near[0]}'? Else add" if near else "add"
            faults.append(
                Fault(str(path), f"unknown label '{name}'.", f"{hint} it to the classes in params.yaml.", number)
            )
        if geometry.geom_type not in ("Polygon", "MultiPolygon") or geometry.is_empty:
            faults.append(Fault(str(path), f"this {geometry.geom_type} has no area.", "draw a closed polygon.", number))
        elif not geometry.is_valid:
            faults.append(
                Fault(
                    str(path),
                    f"the polygon is not valid: {explain_validity(geometry)}.",
                    "redraw it so that its outline does not cross itself.",
                    number,
                )
            )
        else:
            regions += [(name, part) for part in getattr(geometry, "geoms", [geometry])]
    return regions, faults


def check_annotations(manifest: Manifest, config: Tile) -> list[Fault]:
    """Faults of all annotation files that the manifest names."""
    if "polygons" not in (config.labels.source, config.masks.source):
        return []
    classes = config.labels.classes + config.masks.classes
    return [
        fault
        for entry in manifest.slides
        if entry.annotations
        for fault in read_polygons(entry.annotations, classes)[1]
    ]


def rasterise(
    regions: list[Region],
    classes: tuple[str, ...],
    x_level0_px: float,
    y_level0_px: float,
    width_px: int,
    height_px: int,
    downsample: float,
) -> np.ndarray:
    """Class ids (1 + index in `classes`, 0 outside) of a box; where polygons overlap, the later class wins.

    Returns
    -------
    (height_px, width_px) uint8
    """
    out = Image.new("L", (width_px, height_px), 0)
    right, bottom = x_level0_px + width_px * downsample, y_level0_px + height_px * downsample
    for name, polygon in sorted(regions, key=lambda region: classes.index(region[0]) if region[0] in classes else -1):
        left, top, far, low = polygon.bounds
        if name not in classes or far < x_level0_px or low < y_level0_px or left > right or top > bottom:
            continue
        hit = Image.new("1", (width_px, height_px), 0)
        draw = ImageDraw.Draw(hit)
        for ring, fill in [(polygon.exterior, 1), *((hole, 0) for hole in polygon.interiors)]:
            points = (np.asarray(ring.coords)[:, :2] - (x_level0_px, y_level0_px)) / downsample
            draw.polygon([tuple(p) for p in points], fill=fill)
        out.paste(classes.index(name) + 1, mask=hit)
    return np.asarray(out)


@dataclass
class Annotations:
    """What is stated about one slide, ready to be asked about any box of it."""

    config: Tile
    entry: SlideEntry
    regions: list[Region]
    raster: Raster | None
    instances: Raster | None
    spots: pd.DataFrame | None

    def ids(
        self, classes: tuple[str, ...], source: str, box: tuple[float, float, int, int], downsample: float
    ) -> np.ndarray:
        """Class ids of a box (x_level0_px, y_level0_px, width_px, height_px)."""
        if source == "polygons":
            return rasterise(self.regions, classes, *box, downsample)
        if self.raster is None:
            return (self.instances.nearest(box, downsample) > 0).astype(np.uint8)
        return self.raster.nearest(box, downsample).astype(np.uint8)

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


def load_annotations(entry: SlideEntry, config: Tile, spots, width_px: int, height_px: int) -> Annotations:
    """Read what the manifest states about a slide of this level-0 size.

    Raises
    ------
    BadSlide
        when a raster cannot be read, has another size than the slide, or holds ids beyond the stated classes.
    """
    regions: list[Region] = []
    if entry.annotations is not None:
        regions = read_polygons(entry.annotations, config.labels.classes + config.masks.classes)[0]
    instances = read_raster(entry.instances, width_px, height_px)
    raster = read_raster(entry.mask, width_px, height_px)
    largest = raster.largest if raster is not None else min(instances.largest, 1) if instances is not None else 0
    for source, classes in ((config.masks.source, config.masks.classes), (config.labels.source, config.labels.classes)):
        if source == "raster" and largest > len(classes):
            raise BadSlide(
                f"{entry.slide_id}: its mask holds class id {largest}, and params name {len(classes)} "
                "classes. Add the class, or mend the mask."
            )
    mine = spots[spots["slide_id"] == entry.slide_id] if spots is not None else None
    return Annotations(config, entry, regions, raster, instances, mine)
