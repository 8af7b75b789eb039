"""A canvas that begins from a region of a real slide: its latents, what of it is kept, and whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import zarr

from histoloom.canvas import torus
from histoloom.canvas.inputs import array_of, create
from histoloom.canvas.sources import InputSources
from histoloom.conditions.mask import cell_fractions
from histoloom.conditions.picture import picture_map
from histoloom.config import FromImage, Params, Tile, WovenSlide
from histoloom.data.groups import split_groups
from histoloom.data.pixel_box import PixelBox
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.splits import region_of
from histoloom.errors import Fault, HistoloomError, ManifestFaults, Note, notes_among, refuse_faults
from histoloom.progress import track
from histoloom.slides.annotation_checks import check_inside
from histoloom.slides.geojson import read_geojson
from histoloom.slides.open import open_slide
from histoloom.slides.regions import Regions
from histoloom.slides.slide import Slide
from histoloom.slides.slide_stain import fit_slide
from histoloom.slides.stain import Normaliser, RememberedColours
from histoloom.slides.tissue import TissueMap, detect_tissue

_ENCODE_PX, _ENCODE_HALO_PX, _BAND = 512, 64, 256
_FEW_PIECES = 16
"""Fewer are done at once, without a word."""
_NEAR_PX = 32
"""How finely it is told where tissue is near. A multiple of every factor."""


def write_image(group: zarr.Group, slide: WovenSlide, image: FromImage, sources: InputSources) -> set[str]:
    """Write `image`, the latents of the region that a canvas begins from; what is kept of it is not free. Or write the region as what the
    condition `picture` shows.

    Returns
    -------
    The split groups that the region lies in.

    Raises
    ------
    HistoloomError
        for a slide that isn't in the manifest, or a region that reaches beyond it.
    """
    params, factor = sources.params, sources.factor
    where = f"sample_slides.slides, '{slide.name}'"
    if image.slide_id not in sources.slides:
        raise HistoloomError(f"{where}: '{image.slide_id}' is no slide of {params.tile.stated_in}.")
    entry = sources.slides[image.slide_id]
    region = PixelBox(
        image.x_px // factor,
        image.y_px // factor,
        _whole_latents(image.x_px, image.width_px, slide.width_px, factor),
        _whole_latents(image.y_px, image.height_px, slide.height_px, factor),
    )
    with open_slide(entry.path, entry.mpp, params.tile.max_slide_gpx) as source:
        scale = params.tile.mpp / source.mpp
        right, bottom = image.x_level0_px + image.width_px * scale, image.y_level0_px + image.height_px * scale
        if right > source.width + 1 or bottom > source.height + 1:
            size = f"{source.width} x {source.height} px at level 0"
            raise HistoloomError(f"{where}: the region reaches beyond slide '{image.slide_id}', which is {size}.")
        looks = image.picture or params.tile.stain != "none"
        tissue = detect_tissue(source, params.tile.tissue) if looks else None
        normaliser = fit_slide(source, tissue, params.tile.stain, params.tile.tile_px, scale)
        of = _Region(image, source, scale, region, sources, tissue, normaliser)
        if image.picture:
            of.show(group, where)
        else:
            of.begin(group)
        sides = region.width * factor * scale, region.height * factor * scale
        read = PixelBox(float(image.x_level0_px), float(image.y_level0_px), *sides)
        groups = _groups(entry, params, source, read, _ENCODE_HALO_PX * scale)
    if image.picture:
        _go_on(group, (region.top + region.height, region.left + region.width), ("free", "map"))
        return groups
    _settle(group, image, params.tile, region, factor)
    _go_on(group, (-(-slide.height_px // factor), -(-slide.width_px // factor)), ("free", "image"))
    return groups


@dataclass(frozen=True)
class _Region:
    """A region of a slide, open to read.

    scale : level-0 px to a px. place : on the canvas, latent px. tissue : where it is; None where nobody asks. normaliser : of the stain, as
    tiles were normalised.
    """

    image: FromImage
    source: Slide
    scale: float
    place: PixelBox[int]
    sources: InputSources
    tissue: TissueMap | None
    normaliser: Normaliser | RememberedColours

    def begin(self, group: zarr.Group) -> None:
        """Write its latents as `image`, glass around it."""
        latents = create(group, "image", (self.sources.target.channels,), _canvas(group), "float32")
        latents[:] = np.broadcast_to(np.array(group.attrs["background"], np.float32)[:, None, None], latents.shape)
        around = _ENCODE_HALO_PX // self.sources.factor
        for box, picture in self._pieces(_ENCODE_HALO_PX, "encoding"):
            encoded = self.sources.target.encode({"image": picture[None]})[0].numpy()
            inside = encoded[:, around : around + box.height, around : around + box.width]
            latents[:, box.top : box.bottom, box.left : box.right] = inside

    def show(self, group: zarr.Group, where: str) -> None:
        """Write it to the map as what `picture` shows. What is near tissue is free.

        Raises
        ------
        HistoloomError
            of a model that reads no picture.
        """
        if "picture" not in self.sources.maps:
            raise HistoloomError(
                f"{where}: picture: true needs a model that is given pictures (train_denoiser.conditions)."
            )
        channels, names = self.sources.maps["picture"]
        given, free = array_of(group, "map"), array_of(group, "free")
        free[:] = 0
        for box, picture in self._pieces(0, "reading"):
            rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
            given[channels, rows, columns] = picture_map(picture[None], names, box.height, box.width)[0]
            free[rows, columns] = self._near(box)

    def _near(self, box: PixelBox[int]) -> np.ndarray:
        """(height, width) uint8, where a square of `_NEAR_PX` around a square has tissue."""
        assert self.tissue is not None, "what is shown is looked at"
        factor, side = self.sources.factor, max(1, _NEAR_PX // self.sources.factor)
        down, along = (np.arange(start, stop, side) for start, stop in ((0, box.height), (0, box.width)))
        places = np.stack(np.meshgrid(along + box.left - self.place.left, down + box.top - self.place.top), -1).reshape(
            -1, 2
        )
        corners = (places - side) * factor * self.scale + (self.image.x_level0_px, self.image.y_level0_px)
        some = self.tissue.fractions(corners, 3 * side * factor * self.scale).reshape(len(down), len(along)) > 0
        return some.repeat(side, 0).repeat(side, 1)[: box.height, : box.width].astype(np.uint8)

    def _pieces(self, halo: int, doing: str) -> Iterator[tuple[PixelBox[int], np.ndarray]]:
        """Pieces of it with their places on the canvas, latent px, and what is seen there and `halo` px around; progress says what is done."""
        factor, side = self.sources.factor, _ENCODE_PX // self.sources.factor
        region, image, scale = self.place, self.image, self.scale
        corners = [*product(range(0, region.height, side), range(0, region.width, side))]
        title = f"{self.source.path.name}: {doing}"
        for top, left in track(corners, title, len(corners)) if len(corners) > _FEW_PIECES else corners:
            height, width = min(side, region.height - top), min(side, region.width - left)
            x, y = image.x_level0_px + left * factor * scale, image.y_level0_px + top * factor * scale
            size = height * factor + 2 * halo, width * factor + 2 * halo
            picture = _read_padded(self.source, (x - halo * scale, y - halo * scale), size, scale)
            yield PixelBox(region.left + left, region.top + top, width, height), self.normaliser.apply(picture)


def _canvas(group: zarr.Group) -> tuple[int, int]:
    """(height, width), latent px."""
    height, width = array_of(group, "free").shape
    return height, width


def _whole_latents(start: int, side: int, slide: int, factor: int) -> int:
    """Latent px of a region's side, all lengths in px: all that it touches at a slide's border, else all that it fills."""
    return -(-side // factor) if start + side == slide else side // factor


def _go_on(group: zarr.Group, size: tuple[int, int], names: tuple[str, ...]) -> None:
    """Let the mirror image of (height, width) latent px go on beyond their borders, as a slide's mask does."""
    canvas = _canvas(group)
    down, along = (torus.mirrored(side, whole) for side, whole in zip(size, canvas))
    for array in (array_of(group, name) for name in names):
        lead = (slice(None),) * (array.ndim - 2)
        for start in range(0, canvas[0], _BAND):
            rows = down[start : start + _BAND]
            array[*lead, start : start + len(rows)] = np.asarray(array.oindex[*lead, rows])[..., along]


def _settle(group: zarr.Group, image: FromImage, config: Tile, region: PixelBox[int], factor: int) -> None:
    """Settle what is made, what is kept of a region (latent px) and what is glass.

    Of a region that is kept, its holes alone are made. What is neither made nor kept is glass, whatever the image shows.
    """
    areas, _ = read_holes(image, config)
    free, latents = array_of(group, "free"), array_of(group, "image")
    columns, glass = slice(region.left, region.right), np.array(group.attrs["background"], np.float32)
    for start in range(region.top, region.bottom, _BAND):
        rows = slice(start, min(start + _BAND, region.bottom))
        if image.keep:
            height = rows.stop - rows.start
            box = PixelBox(region.left * factor, start * factor, region.width * factor, height * factor)
            made = cell_fractions((areas.numbers(box, 1.0) > 0)[None], height, region.width)[0] > 0
            free[rows, columns] = made.astype(np.uint8)
        else:
            band = np.asarray(latents[:, rows, columns])
            band[:, np.asarray(free[rows, columns]) == 0] = glass[:, None]
            latents[:, rows, columns] = band


def read_holes(image: FromImage, config: Tile) -> tuple[Regions, list[Note]]:
    """The polygons that are made anew in what is kept, and what their file has that is left out.

    Raises
    ------
    ManifestFaults
        with every fault of their file.
    """
    if not image.holes:
        return Regions.of(), []
    if not Path(image.holes).is_file():
        raise ManifestFaults([Fault(image.holes, "the file is missing.", "put it there, or leave 'holes' out.")])
    regions, found = read_geojson(Path(image.holes), None)
    kept = PixelBox(image.x_px, image.y_px, image.width_px, image.height_px)
    found += check_inside(image.holes, regions, kept, config)
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


def _groups(entry: SlideEntry, params: Params, source: Slide, box: PixelBox[float], around: float) -> set[str]:
    """The groups of all that was read: a box, and what lies around it; level-0 px."""
    config = params.tile
    if config.split.group != "region":
        return set(split_groups(entry, config))
    grid, size = config.split.region, (source.width, source.height)
    start = max(0, box.left - around), max(0, box.top - around)
    stop = min(source.width, box.right + around) - 1, min(source.height, box.bottom + around) - 1
    first, last = (region_of(*place, size, grid) for place in (start, stop))
    rows, columns = (range(a, b + 1) for a, b in zip(first, last))
    return {f"{entry.slide_id}/r{r}c{c}" for r in rows for c in columns}
