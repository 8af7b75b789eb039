"""A canvas that begins from a region of a real slide: its latents, what of it is kept, and whose it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import zarr

from histoloom.canvas import torus
from histoloom.canvas.inputs import create
from histoloom.conditions.mask import shares
from histoloom.config import FromImage, Params, Tile, WovenSlide
from histoloom.data.groups import split_groups
from histoloom.data.pixel_box import PixelBox
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.splits import region_of
from histoloom.errors import Fault, HistoloomError, ManifestFaults, Note, notes_among, refuse_faults
from histoloom.slides.annotation_checks import check_inside
from histoloom.slides.geojson import read_geojson
from histoloom.slides.open import open_slide
from histoloom.slides.regions import Regions
from histoloom.slides.slide import Slide
from histoloom.targets.autoencoder import LatentCodec

_ENCODE_PX, _ENCODE_HALO_PX, _BAND = 512, 64, 256


def state_image(
    group: zarr.Group,
    slide: WovenSlide,
    params: Params,
    canvas: tuple[int, int],
    factor: int,
    codec: LatentCodec,
    entries: dict[str, SlideEntry],
) -> set[str]:
    """Write `image`, the latents of the region that a canvas begins from; what is kept of it is not free.

    Returns
    -------
    The split groups that the region lies in.
    """
    image = slide.image
    if image.slide_id not in entries:
        raise HistoloomError(
            f"sample_slides.slides, '{slide.name}': '{image.slide_id}' is no slide of {params.tile.manifest}."
        )
    entry = entries[image.slide_id]
    latents = create(group, "image", (codec.channels,), canvas, "float32")
    latents[:] = np.broadcast_to(np.array(group.attrs["background"], np.float32)[:, None, None], latents.shape)
    top, left = image.y_px // factor, image.x_px // factor
    height = _whole_cells(image.y_px, image.height_px, slide.height_px, factor)
    width = _whole_cells(image.x_px, image.width_px, slide.width_px, factor)
    with open_slide(entry.path, entry.mpp, params.tile.max_slide_gpx) as source:
        scale = params.tile.mpp / source.mpp
        right, bottom = image.x_level0_px + image.width_px * scale, image.y_level0_px + image.height_px * scale
        if right > source.width + 1 or bottom > source.height + 1:
            raise HistoloomError(
                f"sample_slides.slides, '{slide.name}': the region reaches beyond slide '{image.slide_id}', which is "
                f"{source.width} x {source.height} px at level 0."
            )
        for y in range(0, height, _ENCODE_PX):
            for x in range(0, width, _ENCODE_PX):
                size = min(_ENCODE_PX, height - y), min(_ENCODE_PX, width - x)
                corner = image.x_level0_px + x * scale, image.y_level0_px + y * scale
                encoded = _encoded(source, corner, size, scale, codec, factor)
                rows, columns = top + y // factor, left + x // factor
                latents[:, rows : rows + encoded.shape[1], columns : columns + encoded.shape[2]] = encoded
        end = image.x_level0_px + width * scale, image.y_level0_px + height * scale
        groups = _groups(entry, params, source, image, end, _ENCODE_HALO_PX * scale)
    _settle(group, slide, params.tile, (top, left, height // factor, width // factor), factor)
    _go_on(group, canvas, (-(-slide.height_px // factor), -(-slide.width_px // factor)))
    return groups


def _whole_cells(start: int, side: int, slide: int, factor: int) -> int:
    """Px of a region's side in whole latent pixels: all that it touches at a slide's border, else all that it fills."""
    return (-(-side // factor) if start + side == slide else side // factor) * factor


def _go_on(group: zarr.Group, canvas: tuple[int, int], size: tuple[int, int]) -> None:
    """Let the mirror image of a slide's (height, width) latent px go on beyond its borders, as its mask's does."""
    down, along = (torus.mirrored(side, whole) for side, whole in zip(size, canvas))
    for array in (group["free"], group["image"]):
        lead = (slice(None),) * (array.ndim - 2)
        for start in range(0, canvas[0], _BAND):
            rows = down[start : start + _BAND]
            array[*lead, start : start + len(rows)] = array.oindex[*lead, rows][..., along]


def _encoded(source: Slide, corner, size: tuple[int, int], scale: float, codec: LatentCodec, factor: int) -> np.ndarray:
    """Latents of a region of size (height, width) px, seen with what lies around it."""
    halo, (height, width) = _ENCODE_HALO_PX, size
    wider = corner[0] - halo * scale, corner[1] - halo * scale
    picture = _read_padded(source, wider, (height + 2 * halo, width + 2 * halo), scale)
    rows, columns = (slice(halo // factor, (halo + side) // factor) for side in size)
    return codec.encode(picture[None])[0].numpy()[:, rows, columns]


def _settle(group: zarr.Group, slide: WovenSlide, config: Tile, box: tuple[int, int, int, int], factor: int) -> None:
    """Settle what is made, what is kept of a region and what is glass; `box` is its (top, left, height, width).

    Of a region that is kept, its holes alone are made. What is neither made nor kept is glass, whatever the image shows.
    """
    areas, _ = read_holes(slide, config)
    free, latents = group["free"], group["image"]
    top, left, height, width = box
    columns, glass = slice(left, left + width), np.array(group.attrs["background"], np.float32)
    for start in range(top, top + height, _BAND):
        rows = slice(start, min(start + _BAND, top + height))
        made = free[rows, columns] > 0
        if slide.image.keep:
            region = PixelBox(left * factor, rows.start * factor, width * factor, (rows.stop - rows.start) * factor)
            holes = areas.numbers(region, 1.0) > 0
            made = shares(holes[None], rows.stop - rows.start, width)[0] > 0
            free[rows, columns] = made.astype(np.uint8)
        else:
            band = latents[:, rows, columns]
            band[:, ~made] = glass[:, None]
            latents[:, rows, columns] = band


def read_holes(slide: WovenSlide, config: Tile) -> tuple[Regions, list[Note]]:
    """The polygons that are made anew in what is kept, and what their file has that is left out.

    Raises
    ------
    ManifestFaults
        with every fault of their file.
    """
    image = slide.image
    if not image.holes:
        return Regions.of(), []
    if not Path(image.holes).is_file():
        raise ManifestFaults([Fault(image.holes, "the file is missing.", "put it there, or leave 'holes' out.")])
    regions, found = read_geojson(Path(image.holes), None)
    frame = PixelBox(image.x_px, image.y_px, image.width_px, image.height_px)
    found += check_inside(image.holes, regions, frame, config)
    refuse_faults(found)
    return regions, notes_among(found)


def _read_padded(source: Slide, corner: tuple[float, float], size: tuple[int, int], scale: float) -> np.ndarray:
    """A region (height, width) from a corner (x, y) that may lie beyond the slide's border, which is repeated there."""
    x, y = max(0.0, corner[0]), max(0.0, corner[1])
    skip_x, skip_y = round((x - corner[0]) / scale), round((y - corner[1]) / scale)
    height = min(size[0] - skip_y, max(1, int((source.height - y) / scale)))
    width = min(size[1] - skip_x, max(1, int((source.width - x) / scale)))
    read = source.read(PixelBox(x, y, width * scale, height * scale), scale)
    below, beyond = size[0] - skip_y - height, size[1] - skip_x - width
    return np.pad(read, ((skip_y, below), (skip_x, beyond), (0, 0)), mode="edge")


def _groups(
    entry: SlideEntry, params: Params, source: Slide, image: FromImage, end: tuple[float, float], around: float
) -> set[str]:
    """The groups of all that was read: the region, and what lies around it."""
    config = params.tile
    if config.split.group != "region":
        return set(split_groups(entry, config))
    grid, size = config.split.region, (source.width, source.height)
    start = max(0, image.x_level0_px - around), max(0, image.y_level0_px - around)
    stop = min(source.width, end[0] + around) - 1, min(source.height, end[1] + around) - 1
    first, last = (region_of(*place, size, grid) for place in (start, stop))
    rows, columns = (range(a, b + 1) for a, b in zip(first, last))
    return {f"{entry.slide_id}/r{r}c{c}" for r in rows for c in columns}
