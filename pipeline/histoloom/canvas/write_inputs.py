"""From what params state of a slide to the surroundings of its canvas, on disk, and who lent them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zarr
from scipy.ndimage import binary_dilation

from histoloom.canvas import torus
from histoloom.canvas.condition_grid import read_field, state_field
from histoloom.canvas.from_image import read_holes, state_image
from histoloom.canvas.inputs import ARRAYS, FIELD, create
from histoloom.conditions.bus import ConditionSpec
from histoloom.conditions.encode import Encoders
from histoloom.conditions.mask import EDGE, mask_map, read_channels, shares
from histoloom.config import Params, WovenSlide
from histoloom.data.nuclei_layout import outlines
from histoloom.data.pixel_box import PixelBox
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.store import TileStore
from histoloom.errors import Fault, ManifestFaults, Note, notes_among, refuse_faults
from histoloom.slides.annotation_checks import check_inside
from histoloom.slides.geojson import read_geojson
from histoloom.slides.rasters import Raster, read_raster
from histoloom.slides.regions import Regions
from histoloom.slides.slide import BadSlide
from histoloom.targets.autoencoder import LatentCodec

_BAND = 256
"""Latent rows that are written at once."""
_EDGE = 2
"""How far around a mask's classes tissue may reach, latent px."""


@dataclass(frozen=True)
class Mask:
    """Class ids of a slide to be made, from polygons or a raster, asked for band by band.

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


def read_mask(slide: WovenSlide, params: Params, edges: bool) -> Mask | None:
    """Read the mask that a slide names.

    Raises
    ------
    ManifestFaults
        with every fault found in it: a class that params don't name, a raster of another size than the slide.
    """
    if slide.mask is None:
        return None
    classes, size, path = params.tile.masks.classes, (slide.height_px, slide.width_px), Path(slide.mask)
    if not path.is_file():
        raise ManifestFaults(
            [Fault(slide.mask, "the file is missing.", f"put it there, or mend slide '{slide.name}'.")]
        )
    if path.suffix.lower() in (".json", ".geojson"):
        regions, found = read_geojson(path, classes, params.tile.cell_outline)
        found += check_inside(slide.mask, regions, PixelBox(0, 0, slide.width_px, slide.height_px), params.tile)
        refuse_faults(found)
        return Mask(classes, size, regions, None, None, tuple(notes_among(found)))
    raster = read_raster(path, slide.width_px, slide.height_px)
    if raster.largest > len(classes):
        remedy = f"ids are 1 to {len(classes)}, in the order of tile.masks.classes; 0 is none of them."
        raise ManifestFaults([Fault(slide.mask, f"it holds class id {raster.largest}.", remedy)])
    instances = read_raster(Path(slide.instances), slide.width_px, slide.height_px) if slide.instances else None
    if edges and instances is None:
        problem = f"slide '{slide.name}' has a raster mask, and the model reads outlines of nuclei."
        raise ManifestFaults([Fault("params.yaml", problem, "name a raster of nuclei in 'instances'.")])
    return Mask(classes, size, Regions.of(), raster, instances)


def check_lenders(slide: WovenSlide, groups: Iterable[str], splits: dict[str, str]) -> list[Fault]:
    """Faults of who lends conditions to a slide: groups that aren't there, and held-out ones for what is to be emitted."""
    faults, place = [], f"sample_slides.slides, '{slide.name}'"
    for group in groups:
        if group not in splits:
            known = ", ".join(sorted(splits)[:4])
            faults.append(Fault("params.yaml", f"{place}: '{group}' is no split group.", f"groups are {known}, ..."))
        elif slide.purpose == "augment" and splits[group] != "train":
            problem = f"{place}: '{group}' is held out ({splits[group]}), and purpose is augment."
            faults.append(Fault("params.yaml", problem, "draw on train groups alone, or set purpose: evaluate."))
    return faults


def check_slides(params: Params, splits: dict[str, str], slide_ids: Iterable[str] = ()) -> list[Fault | Note]:
    """Faults of the slides that are to be woven, as far as they show without a model, and what of their files is left out."""
    found: list[Fault | Note] = []
    for slide in params.sample_slides.slides:
        found += check_lenders(slide, slide.lent_by, splits)
        if slide.image and slide.image.slide_id not in slide_ids:
            problem = (
                f"sample_slides.slides, '{slide.name}': '{slide.image.slide_id}' is no slide of {params.tile.manifest}."
            )
            found.append(Fault("params.yaml", problem, "mend image.slide_id."))
        for read in (_notes_of_mask, _notes_of_field, _notes_of_holes):
            try:
                found += read(slide, params)
            except ManifestFaults as error:
                found += error.faults
            except BadSlide as error:
                found.append(Fault(slide.mask, str(error), "mend or replace the file."))
    return found


def _notes_of_mask(slide: WovenSlide, params: Params) -> Iterable[Note]:
    mask = read_mask(slide, params, params.encode.edges and "mask" in params.train_denoiser.conditions)
    return () if mask is None else mask.notes


def _notes_of_field(slide: WovenSlide, params: Params) -> Iterable[Note]:
    if slide.field:
        read_field(slide, params, {})
    return ()


def _notes_of_holes(slide: WovenSlide, params: Params) -> Iterable[Note]:
    return () if slide.image is None else read_holes(slide, params.tile)[1]


def write_surroundings(
    folder: Path,
    slide: WovenSlide,
    params: Params,
    canvas: tuple[int, int],
    codec: LatentCodec,
    specs: tuple[ConditionSpec, ...],
    encoders: Encoders,
    store: TileStore,
    entries: dict[str, SlideEntry],
) -> tuple[list[str], list[list[dict]]]:
    """Write what is stated about a slide's canvas of (height, width) latent px.

    Returns
    -------
    The split groups that lent conditions, in order; and the conditions of each point of the field, row by row.
    """
    factor = params.train_autoencoder.down_factor
    maps = next((s.channels for s in specs if s.shape == "map"), ())
    edges = EDGE in read_channels(maps)[0]
    mask = read_mask(slide, params, edges)
    group = zarr.create_group(folder / ARRAYS)
    group.attrs["background"] = _glass(codec, params.sample_slides.glass_rgb)
    free = create(group, "free", (), canvas, "uint8")
    given = create(group, "map", (len(maps),), canvas, "float16") if maps else None  # zeros are the null
    free[:] = 1
    for rows, ids, edge in () if mask is None else _bands(mask, canvas, factor, edges):
        if given is not None:
            given[:, rows] = mask_map(ids[None], edge if edge is None else edge[None], maps, *_cells(ids, factor))[0]
        if slide.outside == "glass":
            free[rows] = _tissue(mask, rows, canvas, factor)
    field, lenders, points = state_field(slide, params, canvas, factor, specs, encoders, store)
    field.save(folder / FIELD)
    if slide.image is not None:
        lenders |= state_image(group, slide, params, canvas, factor, codec, entries)
    return sorted(lenders | set(slide.lent_by)), points


def _tissue(mask: Mask, rows: slice, canvas: tuple[int, int], factor: int) -> np.ndarray:
    """(rows, columns) uint8, where the mask names a class or one lies near, so that tissue draws its own edge."""
    near, px = _EDGE, (canvas[0] * factor, canvas[1] * factor)
    ids = mask.on_canvas(mask.ids, (rows.start - near) * factor, (rows.stop - rows.start + 2 * near) * factor, px)
    tissue = shares((ids > 0)[None], *_cells(ids, factor))[0] > 0
    wider = np.pad(tissue, ((0, 0), (near, near)), mode="wrap")
    return binary_dilation(wider, iterations=near)[near:-near, near:-near].astype(np.uint8)


def _cells(ids: np.ndarray, factor: int) -> tuple[int, int]:
    return ids.shape[0] // factor, ids.shape[1] // factor


def _bands(mask: Mask, canvas: tuple[int, int], factor: int, edges: bool) -> Iterator[tuple]:
    """Latent rows with their class ids and outlines in px, both as wide as the canvas."""
    px = canvas[0] * factor, canvas[1] * factor
    for start in range(0, canvas[0], _BAND):
        rows = slice(start, min(start + _BAND, canvas[0]))
        top, count = rows.start * factor, (rows.stop - rows.start) * factor
        edge = None
        if edges:
            edge = outlines(mask.on_canvas(mask.numbers, top - 1, count + 2, px))[1:-1]
        yield rows, mask.on_canvas(mask.ids, top, count, px), edge


def _glass(codec: LatentCodec, colour: tuple[int, int, int]) -> list[float]:
    """The clean latents of a pixel amid glass."""
    flat = np.full((1, 128, 128, 3), colour, np.uint8)
    latents = codec.encode(flat)[0]
    return latents[:, latents.shape[1] // 2, latents.shape[2] // 2].tolist()
