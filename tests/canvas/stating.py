"""What params state of a small slide to be woven, and what is written of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import zarr

from histoloom.canvas.inputs import CanvasInputs
from histoloom.canvas.sources import InputSources
from histoloom.canvas.write_inputs import PointConditions, write_inputs
from histoloom.conditions.cohort import CohortCondition
from histoloom.conditions.encode import ConditionSet
from histoloom.conditions.label import LabelCondition
from histoloom.conditions.mask import EDGE, MaskCondition
from histoloom.config import Params
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.store import TileStore
from histoloom.targets.autoencoder import build_autoencoder
from histoloom.targets.latents import Latents
from tests.build import make_part, make_slide, tile_rows, tiles

SPLITS = {"a": "train", "v": "val"}
FACTOR = 4


def params_of(slide: dict, conditions=("label", "mask"), **settings) -> Params:
    stated = (
        {"name": "s", "width_px": 160, "height_px": 128} | ({"outside": "glass"} if "mask" in slide else {}) | slide
    )
    return Params.model_validate(
        {
            "tile": {
                "mpp": 1.0,
                "tile_px": 64,
                "labels": {"source": "polygons", "classes": ["left", "right"]},
                "masks": {"source": "polygons", "classes": ["left", "right"]},
            },
            "train_encoders": {"cohort": {"columns": ["site", "scanner"]}, "number": {"columns": ["age", "weight"]}},
            "train_denoiser": {"conditions": list(conditions)},
            "sample_slides": {"slides": [stated], **settings},
        }
    )


def target_of(arch: str = "tiny") -> Latents:
    config = params_of({}).train_autoencoder.model_copy(update={"arch": arch, "channels": 16})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_autoencoder(config).eval().requires_grad_(False)
    return Latents(model, torch.zeros(1, 4, 1, 1), torch.ones(1, 4, 1, 1), "cpu")


ENCODERS = ConditionSet((LabelCondition(("left", "right")), MaskCondition(("background", "left", "right"), 16)))
WITH_COHORT = replace(ENCODERS, conditions=(*ENCODERS.conditions, CohortCondition(("scanner=x", "site=a", "site=b"))))
WITH_EDGES = ConditionSet((MaskCondition(("background", "left", "right", EDGE), 16),))


@dataclass
class Written:
    source_groups: list[str]
    points: list[list[PointConditions]]
    inputs: CanvasInputs
    arrays: zarr.Group


def write(slide: dict, canvas=(48, 56), encoders=ENCODERS, rows: dict | None = None) -> Written:
    params = params_of(slide, encoders.names)
    columns = {"split_group": ["a", "a", "b", "b"], "label": "left"}
    if rows is not None:
        columns["slide_fields"] = rows["cohort"]
    make_part("tiles", "slide", tile_rows(4, **columns), tiles(4))
    make_slide("real.tif", width=200, height=200, mpp=1.0)
    entry = SlideEntry("real", Path("real.tif"), "a", 2)
    Path("stated").mkdir()
    sources = InputSources(params, target_of(), encoders, TileStore("tiles"), {"real": entry})
    groups, points = write_inputs(Path("stated"), params.sample_slides.slides[0], canvas, sources)
    inputs = CanvasInputs(Path("stated"))
    return Written(groups, points, inputs, inputs.arrays)
