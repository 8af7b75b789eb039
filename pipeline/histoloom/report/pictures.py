"""Pictures for the report and for `preview`: contact sheets and curves, as data that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from histoloom.data.store import UNKNOWN

_LEAST_SHOWN_PX = 96
_GAP_PX = 4
_CAPTION_PX = 14
_CAPTION_SIZES = (10, 9, 8)
CLASS_COLOURS = ((91, 63, 158), (230, 140, 20), (40, 160, 90), (200, 40, 90), (20, 150, 190), (120, 120, 20))


def contact_sheet(images: np.ndarray, columns: int = 8, captions: Sequence[str] | None = None) -> Image.Image:
    """Tiles (n, h, w, 3) uint8 in a grid, each with a line of text below where captions are given."""
    if len(images) == 0:
        return Image.new("RGB", (_LEAST_SHOWN_PX, _CAPTION_PX), "white")
    zoom = max(1, -(-_LEAST_SHOWN_PX // images.shape[1]))
    height, width = images.shape[1] * zoom, images.shape[2] * zoom
    step_x, step_y = width + _GAP_PX, height + _GAP_PX + (_CAPTION_PX if captions else 0)
    columns = min(columns, len(images))
    sheet = Image.new("RGB", (columns * step_x, -(-len(images) // columns) * step_y), "white")
    draw = ImageDraw.Draw(sheet)
    for place, image in enumerate(images):
        x, y = place % columns * step_x, place // columns * step_y
        sheet.paste(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC), (x, y))
        if captions:
            text, font = _fitted(draw, captions[place], width)
            draw.text((x, y + height), text, fill=(60, 60, 60), font=font)
    return sheet


def _fitted(draw: ImageDraw.ImageDraw, text: str, width: int):
    """A line of text no wider than this, and its font: smaller where it is long, and cut off, which shows, where it is longer still."""
    for size in _CAPTION_SIZES:
        font = ImageFont.load_default(size)
        if draw.textlength(text, font) <= width:
            return text, font
    while text and draw.textlength(f"{text}…", font) > width:
        text = text[:-1]
    return f"{text}…", font


def mask_picture(masks: np.ndarray, edges: np.ndarray | None = None) -> np.ndarray:
    """Masks (n, h, w) of class ids as (n, h, w, 3) uint8: background white, a colour a class, what is unknown grey, outlines black."""
    colours = np.concatenate([[(255, 255, 255)], np.resize(CLASS_COLOURS, (255, 3))]).astype(np.uint8)
    colours[UNKNOWN] = 200
    out = colours[masks]
    if edges is not None:
        out[edges > 0] = 0
    return out


def data_uri(picture: Image.Image | Path | bytes, kind: str = "png") -> str:
    """A picture as a data: address, so that the page needs nothing from elsewhere."""
    if isinstance(picture, Path):
        payload, kind = picture.read_bytes(), {"jpg": "jpeg"}.get(picture.suffix[1:], picture.suffix[1:])
    elif isinstance(picture, bytes):
        payload = picture
    else:
        stream = io.BytesIO()
        picture.save(stream, kind)
        payload = stream.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(payload).decode()}"


def curve_picture(table: Path, title: str) -> bytes:
    """A training curve (dvclive's table: step and value) as SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    data = np.genfromtxt(table, delimiter="\t", names=True, dtype=float)
    figure = Figure(figsize=(4.2, 2.4), layout="constrained")
    axes = figure.add_subplot()
    assert data.dtype.names, "dvclive's tables have a header"
    step, value = np.atleast_1d(data["step"]), np.atleast_1d(data[data.dtype.names[-1]])
    axes.plot(step, value, linewidth=0.8, color="#c9bfe0")
    axes.plot(step, _smooth(value), linewidth=1.4, color="#5b3f9e")
    axes.set_title(title, fontsize=9)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=7)
    stream = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    return stream.getvalue()


def _smooth(value: np.ndarray, window: int = 9) -> np.ndarray:
    """Moving average whose window shrinks at the ends."""
    half = window // 2
    return np.array([value[max(0, i - half) : i + half + 1].mean() for i in range(len(value))])
