"""The picture that shows what was taken from a slide: tissue, annotations and the grid of kept tiles."""

from __future__ import annotations

from collections.abc import Sequence

import shapely
from PIL import Image, ImageDraw

from histoloom.data.pixel_box import PixelBox
from histoloom.slides.annotate import Annotations
from histoloom.slides.regions import Regions
from histoloom.slides.slide import Slide
from histoloom.slides.tissue import TissueMap, read_whole

_COLOURS = ((230, 140, 20), (90, 60, 200), (40, 160, 90), (200, 40, 90), (20, 150, 190), (120, 120, 20))
_SPLIT_COLOURS = {"train": (30, 30, 30), "val": (0, 110, 255), "test": (220, 0, 0)}
_OUTSIDE = (120, 170, 200)
_ARTEFACT = (235, 200, 0)
_SIDE_PX = 1200
_LARGEST_DOT_PX = 6
_ENOUGH_PX = 500
"""Where the picture that tissue was found on is at least as long as this, the slide is not read again for a sharper."""


def draw_overlay(
    slide: Slide, tissue: TissueMap, annotations: Annotations, tiles: Sequence[tuple[PixelBox[float], str]]
) -> Image.Image:
    """Draw tissue (tinted outside it, yellow where padding or pen was left out), annotations (by class) and tiles (by split) on
    the slide's thumbnail.

    Parameters
    ----------
    tiles : boxes at level 0 of kept tiles, and their splits; drawn as squares, or as dots where the grid overlaps.
    """
    downsample, image = tissue.downsample, Image.fromarray(tissue.picture)
    if max(image.size) < _ENOUGH_PX:
        downsample = max(max(slide.width, slide.height) / _SIDE_PX, 1.0)
        image = Image.fromarray(read_whole(slide, downsample))
    _tint(image, tissue)
    config, scale, draw = annotations.config, 1 / downsample, ImageDraw.Draw(image)
    _draw_tiles(draw, tiles, scale, config.stride_px / config.tile_px)
    names = config.labels.classes + config.masks.classes
    _draw_regions(draw, annotations.regions, names, scale)
    spots = [] if annotations.spots is None else annotations.spots[["x_level0_px", "y_level0_px", "label"]].to_numpy()
    for x, y, label in spots:
        colour = _COLOURS[names.index(label) % len(_COLOURS)]
        draw.ellipse([x * scale - 4, y * scale - 4, x * scale + 4, y * scale + 4], outline=colour, width=2)
    return image


def _tint(image: Image.Image, tissue: TissueMap) -> None:
    artefacts = tissue.is_artefact()
    tints = (
        (~tissue.mask & ~artefacts, _OUTSIDE, 0.35),
        (artefacts, _ARTEFACT, 0.65),  # a blue pen is to be yellow, too
    )
    for where, colour, strength in tints:
        mask = Image.fromarray(where).resize(image.size)
        image.paste(Image.blend(image, Image.new("RGB", image.size, colour), strength), mask=mask)


def _draw_tiles(
    draw: ImageDraw.ImageDraw, tiles: Sequence[tuple[PixelBox[float], str]], scale: float, stride: float
) -> None:
    """Draw tiles whose grid has this stride, in sides of a tile."""
    for box, split in tiles:
        radius = min(max(box.width * scale * stride / 8, 1), _LARGEST_DOT_PX)  # so that dots stay apart
        inset = box.width / 2 - radius / scale if stride < 1 else 0
        drawn = box.grown(-inset).scaled(scale)
        colour = _SPLIT_COLOURS.get(split, (90, 90, 90))
        draw.rectangle(
            [drawn.left, drawn.top, drawn.right, drawn.bottom], outline=colour, fill=colour if stride < 1 else None
        )


def _draw_regions(draw: ImageDraw.ImageDraw, regions: Regions, names: tuple[str, ...], scale: float) -> None:
    """Draw outlines by class; what is too small for one, such as a cell, is a dot."""
    colours = [_COLOURS[names.index(name) % len(_COLOURS)] for name in regions.names]
    bounds = shapely.bounds(regions.polygons).reshape(-1, 4) * scale
    small = (bounds[:, 2:] - bounds[:, :2] < _LARGEST_DOT_PX).all(1)
    for kind, box in zip(regions.kinds[small].tolist(), bounds[small].tolist()):
        draw.ellipse(box, fill=colours[kind])
    for kind, polygon in zip(regions.kinds[~small].tolist(), regions.polygons[~small]):
        for ring in (polygon.exterior, *polygon.interiors):
            points = shapely.get_coordinates(ring) * scale
            draw.line(points.ravel().tolist(), fill=colours[kind], width=3)
