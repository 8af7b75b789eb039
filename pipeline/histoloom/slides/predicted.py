"""Masks of a slide that a learner predicted: read where nobody has annotated, as far as the learner was sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter, ValidationError

from histoloom.config.package import read_json
from histoloom.data.lineage import Lineage, lineage_in
from histoloom.data.pixel_box import PixelBox
from histoloom.data.slide_entry import PREDICTION
from histoloom.data.store import UNKNOWN
from histoloom.errors import HistoloomError
from histoloom.slides.rasters import Raster, read_raster
from histoloom.slides.slide import BadSlide


@dataclass(frozen=True)
class PredictionFacts:
    """What `histoloom predict` writes beside its masks.

    slide, slide_sha256 : the file that was looked at. classes : those with the ids 1, 2, ... width_px, height_px, mpp : of the masks.
    left_px, top_px : their corner on the slide, level-0 px. downsample : level-0 pixels to one of theirs.
    saw : what the learner learnt from, as a lineage record.
    """

    slide: str
    slide_sha256: str
    classes: tuple[str, ...]
    width_px: int
    height_px: int
    mpp: float
    left_px: float
    top_px: float
    downsample: float
    saw: dict[str, Any]


@dataclass(frozen=True)
class PredictedMask:
    """ids, sure : class ids, and how sure they are (255 is sure, 0 where nobody looked).

    numbers : (256,) uint8, from the learner's ids to those of the study.
    least : how sure a pixel must be to be known, from 0 to 1.
    """

    facts: PredictionFacts
    ids: Raster
    sure: Raster
    numbers: np.ndarray
    least: float

    def nearest(self, box: PixelBox[float], downsample: float) -> np.ndarray:
        """Class ids of a box at level 0, (height, width) uint8, at the nearest pixel; UNKNOWN where nobody looked or it isn't sure."""
        facts = self.facts
        here = PixelBox(box.left - facts.left_px, box.top - facts.top_px, box.width, box.height)
        here, step = here.scaled(1 / facts.downsample), downsample / facts.downsample
        ids, sure = (raster.nearest(here, step) for raster in (self.ids, self.sure))
        return np.where(sure >= max(1, 255 * self.least), self.numbers[ids], UNKNOWN).astype(np.uint8)


def read_prediction(folder: Path) -> PredictionFacts:
    """What a folder of `histoloom predict` says of its masks.

    Raises
    ------
    HistoloomError
        when it is damaged, or of an older version.
    """
    path = folder / PREDICTION
    try:
        return TypeAdapter(PredictionFacts).validate_python(read_json(path))
    except ValidationError as error:
        raise HistoloomError(
            f"{path} doesn't say what was predicted ({error.errors()[0]['loc'][0]}): an older version wrote it, or it is damaged. "
            "Predict the slide again: histoloom predict."
        ) from error


def lineage_of_prediction(folder: Path) -> Lineage:
    """What the learner learnt from whose masks these are."""
    return lineage_in(read_prediction(folder).saw, folder / PREDICTION)


def read_predicted(folder: Path, classes: Sequence[str], least: float, slide_sha256: str) -> PredictedMask:
    """The masks that were predicted of a slide.

    Parameters
    ----------
    classes : the study's; a class that the learner knows beside them is background.

    Raises
    ------
    BadSlide
        when they are of another slide or of other classes, or can't be read.
    """
    try:
        facts = read_prediction(folder)
    except HistoloomError as error:
        raise BadSlide(str(error)) from error
    if facts.slide_sha256 != slide_sha256:
        raise BadSlide(f"{folder / PREDICTION}: it was predicted of another file ({facts.slide}). Predict this slide.")
    if unknown := [name for name in classes if name not in facts.classes]:
        raise BadSlide(
            f"{folder / PREDICTION}: the learner knows {', '.join(facts.classes)}, and tile.masks.classes names {unknown[0]}."
        )
    numbers = np.zeros(256, np.uint8)
    for number, name in enumerate(classes, 1):
        numbers[1 + facts.classes.index(name)] = number
    size = facts.width_px, facts.height_px
    ids, sure = (read_raster(folder / name, *size) for name in ("mask.tif", "certainty.tif"))
    return PredictedMask(facts, ids, sure, numbers, least)
