"""Masks of a slide that a learner predicted: read where nobody has annotated, as far as the learner was sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError

from histoloom.config.base import Distinct, Scale
from histoloom.config.package import read_json
from histoloom.data.commit import sha256_file
from histoloom.data.lineage import Lineage, lineage_in
from histoloom.data.pixel_box import PixelBox
from histoloom.data.store import UNKNOWN
from histoloom.errors import HistoloomError
from histoloom.slides.rasters import Raster, read_raster
from histoloom.slides.slide import BadSlide

MASK, CERTAINTY = "mask.tif", "certainty.tif"
_SAME_SCALE = 0.02
_AGAIN = "Predict the slide again: histoloom predict."
_Px = Annotated[int, Field(gt=0)]
_Place = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class PredictionFacts:
    """What `histoloom predict` writes beside its masks.

    slide, slide_sha256, slide_mpp : the file that was looked at, and the scale that it was taken to have, µm/px.
    classes : those with the ids 1, 2, ...
    width_px, height_px, mpp : of the masks.
    left_px, top_px : their corner on the slide, level-0 px. downsample : level-0 pixels to one of theirs.
    mask_sha256, certainty_sha256 : of the two files.
    saw : what the learner learnt from, as a lineage record.
    """

    slide: str
    slide_sha256: str
    slide_mpp: Scale
    classes: Annotated[tuple[str, ...], Field(min_length=1, max_length=254), Distinct]
    width_px: _Px
    height_px: _Px
    mpp: Scale
    left_px: _Place
    top_px: _Place
    downsample: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    mask_sha256: str
    certainty_sha256: str
    saw: dict[str, Any]


@dataclass(frozen=True)
class PredictedMask:
    """ids, sure : class ids, and how sure they are (255 is sure, 0 where the model was not run).

    numbers : (255,) uint8, from the learner's ids to those of the study.
    least : how sure a pixel must be to be known, from 0 to 1.
    """

    facts: PredictionFacts
    ids: Raster
    sure: Raster
    numbers: np.ndarray
    least: float

    def nearest(self, box: PixelBox[float], downsample: float) -> np.ndarray:
        """Class ids of a box at level 0, (height, width) uint8, at the nearest pixel.

        UNKNOWN where the learner isn't sure, where the model was not run, and beyond the masks.
        """
        facts = self.facts
        here = PixelBox(box.left - facts.left_px, box.top - facts.top_px, box.width, box.height)
        here, step = here.scaled(1 / facts.downsample), downsample / facts.downsample
        ids, sure = (raster.nearest(here, step) for raster in (self.ids, self.sure))
        inside = [
            (at >= 0) & (at < side + 1)  # the masks leave out what is less than a pixel of theirs
            for at, side in (
                (here.top + (np.arange(ids.shape[0]) + 0.5) * step, facts.height_px),
                (here.left + (np.arange(ids.shape[1]) + 0.5) * step, facts.width_px),
            )
        ]
        known = (sure >= max(1, 255 * self.least)) & np.outer(*inside)
        return np.where(known, self.numbers[ids], UNKNOWN).astype(np.uint8)


def read_prediction(path: Path) -> PredictionFacts:
    """What a `prediction.json` says of the masks beside it.

    Raises
    ------
    HistoloomError
        when it is damaged, or of an older version.
    """
    stated = read_json(path)
    try:
        facts = TypeAdapter(PredictionFacts).validate_python(stated)
    except ValidationError as error:
        where, problem = error.errors()[0]["loc"], error.errors()[0]["msg"]
        raise HistoloomError(
            f"{path} doesn't say what was predicted ({'.'.join(map(str, where))}: {problem}): an older version wrote it, or it is damaged. {_AGAIN}"
        ) from error
    try:
        lineage_in(facts.saw, path)
    except HistoloomError as error:
        raise HistoloomError(f"{path} doesn't say whose tissue the learner learnt (saw). {_AGAIN}") from error
    return facts


def lineage_of_prediction(path: Path) -> Lineage:
    """What the learner learnt from whose masks these are."""
    return lineage_in(read_prediction(path).saw, path)


def read_predicted(path: Path, classes: Sequence[str], least: float, slide_sha256: str, mpp: float) -> PredictedMask:
    """The masks that were predicted of a slide.

    Parameters
    ----------
    path : of the prediction.json beside them.
    classes : the study's; a class that the learner knows beside them is background.
    slide_sha256, mpp : of the slide as the study has it.

    Raises
    ------
    BadSlide
        when they are of another slide, scale or classes, were changed, or can't be read.
    """
    try:
        facts = read_prediction(path)
    except HistoloomError as error:
        raise BadSlide(str(error)) from error
    if facts.slide_sha256 != slide_sha256:
        raise BadSlide(f"{path}: it was predicted of another file ({facts.slide}). Predict this slide.")
    if abs(facts.slide_mpp / mpp - 1) > _SAME_SCALE:
        raise BadSlide(
            f"{path}: the slide was taken to have {facts.slide_mpp:g} µm/px, and the study says {mpp:g}. Predict it again with "
            f"--slide-mpp {mpp:g}."
        )
    if unknown := [name for name in classes if name not in facts.classes]:
        raise BadSlide(
            f"{path}: the learner knows {', '.join(facts.classes)}, and tile.masks.classes names {unknown[0]}."
        )
    numbers = np.zeros(255, np.uint8)
    for number, name in enumerate(classes, 1):
        numbers[1 + facts.classes.index(name)] = number
    stated = {MASK: facts.mask_sha256, CERTAINTY: facts.certainty_sha256}
    ids, sure = (_raster(path.parent / name, sha256, facts) for name, sha256 in stated.items())
    if ids.largest > len(facts.classes) or sure.largest > UNKNOWN:
        raise BadSlide(f"{path.parent / MASK}: it holds ids beyond its classes. {_AGAIN}")
    return PredictedMask(facts, ids, sure, numbers, least)


def _raster(path: Path, sha256: str, facts: PredictionFacts) -> Raster:
    try:
        if sha256_file(path) != sha256:
            raise BadSlide(
                f"{path} is not the file that was predicted. {_AGAIN} If a person corrected it, it is an annotation: the column mask."
            )
    except OSError as error:
        raise BadSlide(f"{path} can't be read ({error.strerror or error}). {_AGAIN}") from error
    return read_raster(path, facts.width_px, facts.height_px)
