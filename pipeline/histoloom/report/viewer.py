"""A page for each woven slide: deep zoom, the mask over it, and nothing asked of the network."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from openslide.deepzoom import DeepZoomGenerator
from PIL import Image

from histoloom.report.pictures import CLASS_COLOURS, data_uri
from histoloom.slides.open import open_slide
from histoloom.slides.woven import CONDITION, FACTS, NOTE, SLIDE

MOST_PX = 8192
"""A longer slide is held by its page at half the scale, or a quarter, and so on."""
_OVERLAY_PX = 2048
_TILE_PX, _QUALITY = 256, 80


def write_viewer(folder: Path, output: Path) -> None:
    """Write a page that holds the slide of a woven slide's folder and shows it by deep zoom."""
    facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    with open_slide(folder / SLIDE) as slide:
        tiles = DeepZoomGenerator(slide.handle, _TILE_PX, overlap=0)
        last = max(n for n, size in enumerate(tiles.level_dimensions) if n == 0 or max(size) <= MOST_PX)
        width, height = tiles.level_dimensions[last]
        levels = [
            [[_jpeg(tiles.get_tile(level, (x, y))) for x in range(columns)] for y in range(rows)]
            for level, (columns, rows) in enumerate(tiles.level_tiles[: last + 1])
        ]
    classes = facts["classes"] if (folder / CONDITION).exists() else []
    environment = Environment(loader=PackageLoader("histoloom.report", "."), autoescape=True, undefined=StrictUndefined)
    library = Path(__file__).with_name("openseadragon") / "openseadragon.min.js"
    page = environment.get_template("viewer.html").render(
        name=facts["name"],
        note=NOTE,
        width=facts["width_px"],
        height=facts["height_px"],
        mpp=facts["mpp"],
        shown_mpp=facts["mpp"] * facts["width_px"] / width if width != facts["width_px"] else facts["mpp"],
        classes=[(name, "rgb({}, {}, {})".format(*_colour(number))) for number, name in enumerate(classes, 1)],
        slide={"width": width, "height": height, "tile_px": _TILE_PX, "levels": levels},
        overlay=_overlay(folder / CONDITION) if classes else None,
        library=library.read_text(encoding="utf-8"),
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(page, encoding="utf-8")


def _jpeg(tile: Image.Image) -> str:
    stream = io.BytesIO()
    tile.convert("RGB").save(stream, "JPEG", quality=_QUALITY)
    return base64.b64encode(stream.getvalue()).decode()


def _overlay(path: Path) -> str:
    """The classes as colours, clear where there is none."""
    with open_slide(path) as slide:
        downsample = max(1.0, max(slide.width, slide.height) / _OVERLAY_PX)
        level = slide.handle.get_best_level_for_downsample(downsample)
        ids = np.asarray(slide.handle.read_region((0, 0), level, slide.handle.level_dimensions[level]))[..., 0]
    palette = np.array([(0, 0, 0, 0), *((*_colour(number), 255) for number in range(1, 256))], np.uint8)
    return data_uri(Image.fromarray(palette[ids]))


def _colour(number: int) -> tuple[int, int, int]:
    """Of a class id, as the report's masks have it."""
    return CLASS_COLOURS[(number - 1) % len(CLASS_COLOURS)]
