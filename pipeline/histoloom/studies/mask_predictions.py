"""How good the masks are that requests predicted of held-out tiles, and whether samples that agree are right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import pandas as pd

from histoloom.data.rows import spread
from histoloom.data.store import UNKNOWN, TileStore
from histoloom.learners.certainty import calibration_of, fit_certainty
from histoloom.sampling.reduce.masks import AGREEMENT
from histoloom.uplift.tasks import counted, mask_task

_AT_ONCE = 64


class CertaintyPoints(TypedDict):
    """A rising line between points: the share of samples that agree on a pixel's class, to how often such pixels are right."""

    said: list[float]
    right: list[float]


class MaskPredictions(TypedDict, total=False):
    """Of one request: its masks of test tiles against the masks that a person drew.

    tiles, groups : of test. dice : mean over split groups; dice_of_worst_group, dice_of_class. Absent where no test tile shows a class.
    error : share of pixels that are wrong; error_of_surest : of the nine tenths on which most samples agree.
    calibration_error_as_said : how far that share is from how often pixels are right. calibration_error : the same after `certainty`, which
    was fitted on val tiles.
    """

    tiles: int
    groups: int
    dice: float
    dice_of_worst_group: float
    dice_of_class: dict[str, float]
    error: float
    error_of_surest: float
    calibration_error_as_said: float
    calibration_error: float
    certainty: CertaintyPoints


def measured_predictions(
    real: TileStore, predicted: TileStore, classes: tuple[str, ...], most: int
) -> dict[str, MaskPredictions]:
    """Request to what is measured of its masks; requests that predict no masks, or none of an annotated test tile, are left out.

    most : tiles of each split that are read, evenly spread.
    """
    truth = real.rows().set_index("tile_id", drop=False)
    found = {}
    for request, rows in predicted.rows().groupby("request", sort=False):
        sources = truth.loc[_shown(rows)]
        if not _predicts_masks(real, predicted, rows, sources):
            continue
        known = sources["masked"].to_numpy(bool)
        val, test = (rows[known & (sources["split"] == split).to_numpy()] for split in ("val", "test"))
        if len(test):
            found[str(request)] = _measured(real, predicted, truth, spread(val, most), spread(test, most), classes)
    return found


def _predicts_masks(real: TileStore, predicted: TileStore, rows: pd.DataFrame, sources: pd.DataFrame) -> bool:
    """Whether a request's masks are results, and have the size of the real ones. A mask beside a picture was given."""
    part = rows["part"].iloc[0]
    has = {name: predicted.has(name, part) for name in ("mask", "image", "vector")}
    if not has["mask"] or has["image"] or has["vector"] or not real.has("mask", sources["part"].iloc[0]):
        return False
    ours, theirs = predicted.read(rows.head(1), "mask"), real.read(sources.head(1), "mask")
    return ours.shape == theirs.shape


def _measured(
    real: TileStore, predicted: TileStore, truth: pd.DataFrame, val: pd.DataFrame, test: pd.DataFrame, classes: tuple[str, ...]
) -> MaskPredictions:  # fmt: skip
    counts, pixels = [], []
    for ours, theirs, sure in _batches(real, predicted, truth, test):
        counts.append(counted(ours, theirs, len(classes)))
        pixels += [] if sure is None else [_sure_and_right(ours, theirs, sure)]
    task = mask_task(truth.loc[_shown(test)], classes)
    found: MaskPredictions = {"tiles": len(test), "groups": len({*task.groups})}
    counted_pixels = np.concatenate(counts)
    if counted_pixels.reshape(len(test), len(classes), 3)[..., 2].any():  # else no test tile shows what could be found
        measures = task.measures(counted_pixels)
        found["dice"], found["dice_of_worst_group"] = measures["dice"], measures["dice_of_worst_group"]
        found["dice_of_class"] = measures["dice_of_class"]
    if not pixels:
        return found
    sure, right = (np.concatenate(each) for each in zip(*pixels))
    said = calibration_of(sure, right)
    found |= {"error": said["error"], "error_of_surest": said["error_of_surest"]}
    found["calibration_error_as_said"] = said["calibration_error"]
    of_val = [_sure_and_right(*each) for each in _batches(real, predicted, truth, val) if each[2] is not None]  # type: ignore[arg-type]
    certainty = fit_certainty(*(np.concatenate(each) for each in zip(*of_val))) if of_val else None
    if certainty is not None:
        found["calibration_error"] = calibration_of(certainty(sure), right)["calibration_error"]
        found["certainty"] = {"said": [*certainty.said], "right": [*certainty.right]}
    return found


def _batches(
    real: TileStore, predicted: TileStore, truth: pd.DataFrame, rows: pd.DataFrame
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
    """Masks (b, h, w) that are predicted and drawn, and how far samples agree, (b, h, w), where the request tells."""
    for start in range(0, len(rows), _AT_ONCE):
        some = rows.iloc[start : start + _AT_ONCE]
        tells = predicted.has(AGREEMENT, some["part"].iloc[0])
        sure = predicted.read(some, AGREEMENT) if tells else None
        yield predicted.read(some, "mask"), real.read(truth.loc[_shown(some)], "mask"), sure


def _shown(rows: pd.DataFrame) -> pd.Series:
    """The tile that each result is of."""
    return rows["input_ref"].fillna(rows["condition_ref"])


def _sure_and_right(ours: np.ndarray, theirs: np.ndarray, sure: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = theirs != UNKNOWN
    return sure[known], ours[known] == theirs[known]
