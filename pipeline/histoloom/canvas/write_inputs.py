"""From what params state of a slide to the inputs of its canvas, on disk, and the split groups that they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr
from scipy.ndimage import binary_dilation

from histoloom.canvas.condition_table import PointConditions, read_condition_table, state_conditions
from histoloom.canvas.from_image import read_holes, write_image
from histoloom.canvas.inputs import ARRAYS, GRID, array_of, create
from histoloom.canvas.slide_mask import SlideMask, read_mask
from histoloom.canvas.sources import InputSources, check_source_groups
from histoloom.conditions.mask import EDGE, cell_fractions, mask_map, read_channels
from histoloom.config import Params, WovenSlide
from histoloom.data.nuclei_layout import outlines
from histoloom.data.pixel_box import PixelBox
from histoloom.errors import Fault, ManifestFaults, Note
from histoloom.slides.slide import BadSlide
from histoloom.targets.target import Raster

_BAND = 256
"""Latent rows that are written at once."""
_EDGE = 2
"""How far around a mask's classes tissue may reach, latent px."""


def check_slides(params: Params, splits: dict[str, str], slide_ids: Iterable[str] = ()) -> list[Fault | Note]:
    """Faults of the slides that are to be woven, as far as they show without a model, and what of their files is left out."""
    found: list[Fault | Note] = []
    for slide in params.sample_slides.slides:
        found += check_source_groups(slide, slide.source_groups, splits)
        if slide.image and slide.image.slide_id not in slide_ids:
            problem = f"sample_slides.slides, '{slide.name}': '{slide.image.slide_id}' is no slide of {params.tile.stated_in}."
            found.append(Fault("params.yaml", problem, "mend image.slide_id."))
        for read in (_notes_of_mask, _notes_of_grid, _notes_of_holes):
            try:
                found += read(slide, params)
            except ManifestFaults as error:
                found += error.faults
            except BadSlide as error:
                found.append(Fault(slide.mask or slide.name, str(error), "mend or replace the file."))
    return found


def _notes_of_mask(slide: WovenSlide, params: Params) -> Iterable[Note]:
    mask = read_mask(slide, params, edges=params.encode.edges and "mask" in params.train_denoiser.conditions)
    return () if mask is None else mask.notes


def _notes_of_grid(slide: WovenSlide, params: Params) -> Iterable[Note]:
    read_condition_table(slide, params)
    return ()


def _notes_of_holes(slide: WovenSlide, params: Params) -> Iterable[Note]:
    return () if slide.image is None else read_holes(slide.image, params.tile)[1]


class InputsRecord(NamedTuple):
    """What is recorded of a canvas's inputs.

    source_groups : the split groups that they draw on, sorted.
    points : what each point of the condition grid states, row by row.
    """

    source_groups: list[str]
    points: list[list[PointConditions]]


def write_inputs(folder: Path, slide: WovenSlide, canvas: tuple[int, int], sources: InputSources) -> InputsRecord:
    """Write what is stated about a slide's canvas of (height, width) latent px, as `CanvasInputs` reads it."""
    group = zarr.create_group(folder / ARRAYS)
    group.attrs["background"] = _glass(sources.target, sources.params.sample_slides.glass_rgb)
    _write_mask(group, slide, canvas, sources)
    conditions = state_conditions(slide, sources)
    conditions.grid.save(folder / GRID)
    groups = {*conditions.source_groups, *slide.source_groups}
    if slide.image is not None:
        groups |= write_image(group, slide, slide.image, sources)
    return InputsRecord(sorted(groups), conditions.points)


def write_start(folder: Path, canvas: tuple[int, int], read: Callable[[PixelBox[int]], np.ndarray] | None) -> None:
    """Write the x that a canvas begins from: what another came to, or, unstated, the data of its image."""
    group = zarr.open_group(folder / ARRAYS)
    height, width = canvas
    image = array_of(group, "image")
    start = create(group, "start", (image.shape[0],), canvas, "float32")
    for top in range(0, height, _BAND):
        box = PixelBox(0, top, width, min(_BAND, height - top))
        start[:, top : box.bottom] = np.asarray(image[:, top : box.bottom]) if read is None else read(box)


def _write_mask(group: zarr.Group, slide: WovenSlide, canvas: tuple[int, int], sources: InputSources) -> None:
    """Write `free`, and `map` where the denoiser reads one."""
    factor, maps = sources.factor, sources.maps
    place, channels = maps.get("mask", (slice(0), ()))
    edges = EDGE in read_channels(channels)[0]
    mask = read_mask(slide, sources.params, edges=edges)
    free = create(group, "free", (), canvas, "uint8")
    if maps:  # zeros are the null
        given = create(group, "map", (max(where.stop for where, _ in maps.values()),), canvas, "float16")
    free[:] = 1
    if mask is None:
        return
    for rows, ids, edge in _bands(mask, canvas, factor, edges=edges):
        if channels:
            of_mask = mask_map(ids[None], edge if edge is None else edge[None], channels, *_cells(ids, factor))
            given[place, rows] = of_mask[0]
        if slide.outside == "glass":
            free[rows] = _tissue(mask, rows, canvas, factor)


class Band(NamedTuple):
    """Latent rows of a mask, as wide as the canvas.

    ids : (height, width) px, class ids. edge : (height, width) px, outlines of nuclei, or None where none are read.
    """

    rows: slice
    ids: np.ndarray
    edge: np.ndarray | None


def _tissue(mask: SlideMask, rows: slice, canvas: tuple[int, int], factor: int) -> np.ndarray:
    """(rows, columns) uint8, where the mask names a class or one lies near, so that tissue draws its own edge."""
    near, px = _EDGE, (canvas[0] * factor, canvas[1] * factor)
    ids = mask.on_canvas(mask.ids, (rows.start - near) * factor, (rows.stop - rows.start + 2 * near) * factor, px)
    tissue = cell_fractions((ids > 0)[None], *_cells(ids, factor))[0] > 0
    wider = np.pad(tissue, ((0, 0), (near, near)), mode="wrap")
    return binary_dilation(wider, iterations=near)[near:-near, near:-near].astype(np.uint8)


def _cells(ids: np.ndarray, factor: int) -> tuple[int, int]:
    return ids.shape[0] // factor, ids.shape[1] // factor


def _bands(mask: SlideMask, canvas: tuple[int, int], factor: int, *, edges: bool) -> Iterator[Band]:
    """The mask of a canvas, from its top to its bottom."""
    px = canvas[0] * factor, canvas[1] * factor
    for start in range(0, canvas[0], _BAND):
        rows = slice(start, min(start + _BAND, canvas[0]))
        top, count = rows.start * factor, (rows.stop - rows.start) * factor
        edge = None
        if edges:
            edge = outlines(mask.on_canvas(mask.numbers, top - 1, count + 2, px))[1:-1]
        yield Band(rows, mask.on_canvas(mask.ids, top, count, px), edge)


def _glass(target: Raster, colour: tuple[int, ...]) -> list[float]:
    """The clean data of a pixel amid glass, or of a mask's background, (channels,)."""
    flat = np.full((1, 128, 128, 3), colour, np.uint8)
    empty = np.zeros(flat.shape[:3], np.uint16)
    latents = target.encode({"image": flat, "mask": empty.astype(np.uint8), "instance": empty})[0]
    return latents[:, latents.shape[1] // 2, latents.shape[2] // 2].tolist()
