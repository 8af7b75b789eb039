"""The picture that shows what was taken from a slide: tissue, annotations and the grid of kept tiles."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from pipeline.slides.annotate import Annotations
from pipeline.slides.tissue import TissueMap

_COLOURS = ((230, 140, 20), (90, 60, 200), (40, 160, 90), (200, 40, 90), (20, 150, 190), (120, 120, 20))
_SPLIT_COLOURS = {"train": (30, 30, 30), "val": (0, 110, 255), "test": (220, 0, 0)}
_SIDE_PX = 1000


def draw_overlay(
    tissue: TissueMap, annotations: Annotations, tiles: list[tuple[float, float, str]], side_level0_px: float
) -> Image.Image:
    """Draw tissue (tinted outside it), annotations (by class) and tiles (by split) on the slide's thumbnail.

    Parameters
    ----------
    tiles : (x_level0_px, y_level0_px, split) of kept tiles.
    """
    picture = tissue.picture.copy()
    picture[~tissue.mask] = (picture[~tissue.mask] * 0.6 + np.array([150, 190, 210]) * 0.4).astype(np.uint8)
    zoom = _SIDE_PX / max(picture.shape[:2])
    image = Image.fromarray(picture).resize(
        (max(1, round(picture.shape[1] * zoom)), max(1, round(picture.shape[0] * zoom))), Image.Resampling.BICUBIC
    )
    scale = zoom / tissue.downsample
    draw = ImageDraw.Draw(image)
    for x, y, split in tiles:
        draw.rectangle(
            [x * scale, y * scale, (x + side_level0_px) * scale, (y + side_level0_px) * scale],
            outline=_SPLIT_COLOURS.get(split, (90, 90, 90)),
        )
    names = annotations.config.labels.classes + annotations.config.masks.classes
    for name, polygon in annotations.regions:
        colour = _COLOURS[names.index(name) % len(_COLOURS)] if name in names else (0, 0, 0)
        for ring in (polygon.exterior, *polygon.interiors):
            draw.line([tuple(p) for p in np.asarray(ring.coords)[:, :2] * scale], fill=colour, width=3)
    for (x, y), label in zip(annotations.spots if annotations.spots is not None else [], annotations.spot_labels):
        colour = _COLOURS[names.index(label) % len(_COLOURS)]
        draw.ellipse([x * scale - 4, y * scale - 4, x * scale + 4, y * scale + 4], outline=colour, width=2)
    return image
