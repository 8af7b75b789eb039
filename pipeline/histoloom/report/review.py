"""The page of a blinded review: tiles without a word of what they are, and a reader's verdicts as a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from histoloom.quality.review import NONE
from histoloom.report.pictures import data_uri


def write_review(images: np.ndarray, name: str, classes: list[str], output: Path) -> None:
    """Write the page for tiles (n, h, w, 3) uint8 in the order in which they are shown; `classes` are those that it asks to tell apart."""
    environment = Environment(loader=PackageLoader("histoloom.report", "."), autoescape=True, undefined=StrictUndefined)
    tiles = [data_uri(Image.fromarray(image)) for image in images]
    output.write_text(
        environment.get_template("review.html").render(
            tiles=tiles, name=name, classes=[*classes, NONE] if classes else []
        ),
        encoding="utf-8",
    )
