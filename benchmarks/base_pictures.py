"""The pictures that the docs show of the packaged model: samples under their masks, and a woven slide beside its section.

Both are of her2st's section C5, which the model never saw, at the scale that its recipe cuts sections at.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.packaged import DATASET
from benchmarks.studies import Study
from histoloom.data.pixel_box import PixelBox
from histoloom.slides.open import open_slide
from histoloom.slides.segment import segment_slide

SECTION = "C5"
COLUMNS = 12
SLIDE_PX = 4096
_CORNER_PX = (3000, 3000)
"""Of the woven region, at level 0 of the section."""
_SHOWN_PX, _GAP_PX = 640, 10
_COLOURS = np.array([(255, 255, 255), (91, 63, 158), (120, 190, 120)], np.uint8)
"""Of background, nuclei and clear space."""
_QUALITY = 90


def write_pictures(study: Study, images: np.ndarray, folder: Path, side: int) -> None:
    """Write `model.jpg` and `slide.jpg`.

    study : of the packaged model as it is. images : its samples, in the plan's order. side : of the slide, px.
    """
    samples(study, images).save(folder / "model.jpg", quality=_QUALITY)
    slide(study, side).save(folder / "slide.jpg", quality=_QUALITY)


def samples(study: Study, images: np.ndarray) -> Image.Image:
    """The section's masks, its tiles, and the samples under their conditions, evenly spread and not chosen."""
    sources = study.sources()
    of = np.flatnonzero((sources["slide_id"] == SECTION) & (sources["mpp"] == study.params["tile"]["mpp"]))
    pick = of[np.unique(np.linspace(0, len(of) - 1, COLUMNS).astype(int))]
    rows = sources.iloc[pick]
    shown = (_COLOURS[study.tiles.read(rows, "mask")], study.tiles.read(rows), images[pick])
    return Image.fromarray(np.concatenate([np.concatenate([*row], 1) for row in shown]))


def slide(study: Study, side: int) -> Image.Image:
    """A slide under the nuclei and clear space of a region of the section, a part of it, and the section at that part's place."""
    source, mpp = Path(study.params["tile"]["slides_root"]) / f"{SECTION}.tif", study.params["tile"]["mpp"]
    table = pd.read_csv(study.folder / "manifests/slides.csv").set_index("slide_id")
    stated = float(table.loc[SECTION, "mpp"]) if "mpp" in table else None
    corner = _CORNER_PX
    with open_slide(source, stated) as section:
        downsample = mpp / section.mpp
        level0 = math.ceil(side * downsample)
        segment_slide(
            source,
            ("nucleus", "clear"),
            mpp,
            PixelBox(*corner, level0, level0),
            study.folder / "manifests/canvas",
            stated,
        )
        woven = _woven(study)
        part, at = min(_SHOWN_PX, side // 2), side // 4  # its side, and its corner in the slide
        box = PixelBox(corner[0] + at * downsample, corner[1] + at * downsample, part * downsample, part * downsample)
        real = section.read(box, downsample)
    panels = [woven, woven.crop((at, at, at + part, at + part)), Image.fromarray(real)]
    out = Image.new("RGB", (len(panels) * (_SHOWN_PX + _GAP_PX) - _GAP_PX, _SHOWN_PX), "white")
    for number, panel in enumerate(panels):
        out.paste(panel.resize((_SHOWN_PX, _SHOWN_PX), Image.Resampling.LANCZOS), (number * (_SHOWN_PX + _GAP_PX), 0))
    return out


def _woven(study: Study) -> Image.Image:
    """The slide under `manifests/canvas/mask.png`, never to be emitted: beside its mask, scale and cohort alone are stated."""
    height, width = np.asarray(Image.open(study.folder / "manifests/canvas/mask.png")).shape
    stated = {
        "name": "held-out", "width_px": width, "height_px": height, "mask": "manifests/canvas/mask.png", "cohort": {"dataset": DATASET},
        "source_groups": [SECTION], "purpose": "evaluate", "outside": "tissue",  # what is no nucleus and not clear is stroma
    }  # fmt: skip
    guidance = {"mask": study.params["sample"]["guidance"], "magnification": 1.0, "cohort": 1.0}
    before = study.params
    study.params = before | {
        "sample_slides": {
            "slides": [stated],
            "guidance": {name: guidance.get(name, 0.0) for name in before["train_denoiser"]["conditions"]},
            "steps": 20,
            "precision": "bf16",
        }
    }
    study.run("sample_slides")
    study.params = before
    with open_slide(study.folder / "data/woven/held-out/slide.tif", before["tile"]["mpp"]) as made:
        return Image.fromarray(made.read(PixelBox(0, 0, made.width, made.height), 1.0))
