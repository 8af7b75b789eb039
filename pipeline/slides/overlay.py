"""The picture that shows what was taken from a slide: tissue, annotations and the grid of kept tiles."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from pipeline.slides.annotate import Annotations
from pipeline.slides.open import Slide
from pipeline.slides.tissue import TissueMap, read_whole

_COLOURS = ((230, 140, 20), (90, 60, 200), (40, 160, 90), (200, 40, 90), (20, 150, 190), (120, 120, 20))
_SPLIT_COLOURS = {"train": (30, 30, 30), "val": (0, 110, 255), "test": (220, 0, 0)}
_OUTSIDE = (120, 170, 200)
_ARTEFACT = (235, 200, 0)
_SIDE_PX = 1200
_LARGEST_DOT_PX = 6
_ENOUGH_PX = 500
"""Where the picture that tissue was found on is at least as long as this, the slide is not read again for a sharper."""


def draw_overlay(
    slide: Slide,
    tissue: TissueMap,
    annotations: Annotations,
    tiles: list[tuple[float, float, str]],
    side_level0_px: float,
) -> Image.Image:
    """Draw tissue (tinted outside it, yellow where padding or pen was left out), annotations (by class) and tiles (by split) on
    the slide's thumbnail.

    Parameters
    ----------
    tiles : (x_level0_px, y_level0_px, split) of kept tiles; drawn as squares, or as dots where the grid overlaps.
    """
    downsample, image = tissue.downsample, Image.fromarray(tissue.picture)
    if max(image.size) < _ENOUGH_PX:
        downsample = max(max(slide.width, slide.height) / _SIDE_PX, 1.0)
        image = Image.fromarray(read_whole(slide, downsample))
    artefacts = tissue.is_artefact()
    for where, colour in ((~tissue.mask & ~artefacts, _OUTSIDE), (artefacts, _ARTEFACT)):
        mask = Image.fromarray(where).resize(image.size)
        image.paste(Image.blend(image, Image.new("RGB", image.size, colour), 0.35), mask=mask)
    scale, draw = 1 / downsample, ImageDraw.Draw(image)
    stride_px, tile_px = annotations.config.stride_px, annotations.config.tile_px
    overlap, stride = stride_px < tile_px, side_level0_px * scale * stride_px / tile_px
    radius = min(max(stride / 8, 1), _LARGEST_DOT_PX)  # so that dots stay apart
    inset = side_level0_px / 2 - radius / scale if overlap else 0
    for x, y, split in tiles:
        box = [x + inset, y + inset, x + side_level0_px - inset, y + side_level0_px - inset]
        colour = _SPLIT_COLOURS.get(split, (90, 90, 90))
        draw.rectangle([v * scale for v in box], outline=colour, fill=colour if overlap else None)
    names = annotations.config.labels.classes + annotations.config.masks.classes
    for name, polygon in annotations.regions:
        colour = _COLOURS[names.index(name) % len(_COLOURS)] if name in names else (0, 0, 0)
        for ring in (polygon.exterior, *polygon.interiors):
            draw.line([tuple(p) for p in np.asarray(ring.coords)[:, :2] * scale], fill=colour, width=3)
    spots = [] if annotations.spots is None else annotations.spots[["x_level0_px", "y_level0_px", "label"]].to_numpy()
    for x, y, label in spots:
        colour = _COLOURS[names.index(label) % len(_COLOURS)]
        draw.ellipse([x * scale - 4, y * scale - 4, x * scale + 4, y * scale + 4], outline=colour, width=2)
    return image
