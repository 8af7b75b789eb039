"""The mask of a slide that is to be made: read from polygons or a raster, and continued beyond the slide's borders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoloom.canvas import torus
from histoloom.config import Params, WovenSlide
from histoloom.config.file_keys import GENERATED
from histoloom.data.pixel_box import PixelBox
from histoloom.errors import Fault, ManifestFaults, Note, notes_among, refuse_faults
from histoloom.slides.annotation_checks import check_inside
from histoloom.slides.geojson import read_geojson
from histoloom.slides.rasters import Raster, read_raster
from histoloom.slides.regions import Regions


@dataclass(frozen=True)
class SlideMask:
    """Class ids of a slide to be made, from polygons or a raster, asked for band by band.

    size : (height, width) px.
    instances : a raster of nuclei beside that of classes.
    notes : what the polygons' file has that is left out.
    """

    classes: tuple[str, ...]
    size: tuple[int, int]
    regions: Regions
    raster: Raster | None
    instances: Raster | None
    notes: tuple[Note, ...] = ()

    def ids(self, top: int, rows: int) -> np.ndarray:
        """(rows, width) uint8."""
        if self.raster is None:
            return self.regions.class_ids(self.classes, PixelBox(0, top, self.size[1], rows), 1.0)
        return self.raster.read(PixelBox(0, top, self.size[1], rows)).astype(np.uint8)

    def numbers(self, top: int, rows: int) -> np.ndarray:
        """(rows, width) int32, a number for each nucleus."""
        if self.raster is not None:
            assert self.instances is not None, "read_mask asks for them where outlines are read"
            return self.instances.read(PixelBox(0, top, self.size[1], rows)).astype(np.int32)
        return self.regions.numbers(PixelBox(0, top, self.size[1], rows), 1.0)

    def on_canvas(
        self, read: Callable[[int, int], np.ndarray], top: int, rows: int, canvas: tuple[int, int]
    ) -> np.ndarray:
        """Rows of a canvas of (height, width) px, (rows, width), as `ids` or `numbers` reads them.

        The slide's mirror image goes on beyond its borders, into what is made and not kept: nothing that is made ends
        there, so that tissue which reaches a border does not draw an edge to it.
        """
        down, along = (torus.mirrored(side, whole) for side, whole in zip(self.size, canvas))
        wanted, place = np.unique(down[np.arange(top, top + rows) % canvas[0]], return_inverse=True)
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        return np.concatenate([read(int(run[0]), len(run)) for run in runs])[np.ix_(place, along)]


def read_mask(slide: WovenSlide, params: Params, *, edges: bool) -> SlideMask | None:
    """Read the mask that a slide names; None where it names none, or where it is generated.

    Parameters
    ----------
    edges : whether the model reads outlines of nuclei.

    Raises
    ------
    ManifestFaults
        with every fault found in it: a class that params don't name, a raster of another size than the slide.
    """
    if slide.mask in (None, GENERATED):
        return None
    classes, size, path = params.tile.masks.classes, (slide.height_px, slide.width_px), Path(slide.mask)
    if not path.is_file():
        remedy = f"put it there, or mend slide '{slide.name}'."
        raise ManifestFaults([Fault(slide.mask, "the file is missing.", remedy)])
    if path.suffix.lower() in (".json", ".geojson"):
        regions, found = read_geojson(path, classes, params.tile.cell_outline)
        found += check_inside(slide.mask, regions, PixelBox(0, 0, slide.width_px, slide.height_px), params.tile)
        refuse_faults(found)
        return SlideMask(classes, size, regions, None, None, tuple(notes_among(found)))
    raster = read_raster(path, slide.width_px, slide.height_px)
    if raster.largest > len(classes):
        remedy = f"ids are 1 to {len(classes)}, in the order of tile.masks.classes; 0 is none of them."
        raise ManifestFaults([Fault(slide.mask, f"it holds class id {raster.largest}.", remedy)])
    instances = read_raster(Path(slide.instances), slide.width_px, slide.height_px) if slide.instances else None
    if edges and instances is None:
        problem = f"slide '{slide.name}' has a raster mask, and the model reads outlines of nuclei."
        raise ManifestFaults([Fault("params.yaml", problem, "name a raster of nuclei in 'instances'.")])
    return SlideMask(classes, size, Regions.of(), raster, instances)
