"""What the filters' calibration rests on: measures on real held-out tiles and on tiles spoilt or copied on purpose,
and a picture of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np
import pandas as pd

from histoloom.config import TrainFilters
from histoloom.learners.certainty import checked
from histoloom.learners.linear import expected_calibration_error
from histoloom.quality.filters.base import Filter, Tiles
from histoloom.quality.filters.conditions import MaskFilter
from histoloom.quality.filters.filter_set import Calibration, FilterSet
from histoloom.quality.filters.labels import LabelFilter
from histoloom.quality.planted_copies import disguised
from histoloom.quality.spoilt_tiles import degrade

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_PLANTED = 64
_BAD = {"near_copy": "copies, disguised", "mask": "real, under another's mask"}


class RealTiles(NamedTuple):
    """Real tiles: those that filters were fitted to, those they were calibrated on, and those that had no part in it."""

    train: Tiles
    held_out: Tiles
    test: Tiles


class FilterMetrics(TypedDict, total=False):
    """Fractions of tiles that one filter rejects, and its threshold; None where nothing could be calibrated.

    median_of_real : label to the median score of held-out tiles, beside which stands that of synthetic ones in reports/filter.

    calibration_error : of the filter `label`, of its classes; of `mask`, of test pixels, after it was calibrated on held-out tiles.
    calibration_error_as_said, error, error_of_surest : of test pixels: before that; how many are wrong, and of the nine tenths that are surest.

    exchanged_caught : of held-out tiles, each with the mask of another that differs from its own; left out without a threshold.

    The last eleven are there for the filter or the split that they are of.
    """

    threshold: float | None
    false_rejection_stated: float | None
    false_rejection_found: float | None
    false_rejection_of_test: float | None
    test_tiles: int
    median_of_real: dict[str, float]
    spoilt_caught: dict[str, float]
    planted_caught: float
    exchanged_caught: float
    accuracy: float
    balanced_accuracy: float
    recall: dict[str, float]
    calibration_error: float
    calibration_error_as_said: float
    error: float
    error_of_surest: float


class AllFiltersMetrics(TypedDict, total=False):
    """Fractions of real tiles that all filters together reject; of test, where the study has a test split."""

    held_out_tiles: int
    false_rejection_of_all: float
    test_tiles: int
    false_rejection_of_all_of_test: float


class Measured(NamedTuple):
    """Measures of the filters together and one by one, and the scores (n,) of tiles that some of them should reject."""

    together: AllFiltersMetrics
    by_filter: dict[str, FilterMetrics]
    bad: dict[str, np.ndarray]


def measure_filter_set(calibration: Calibration, tiles: RealTiles, config: TrainFilters, seed: int) -> Measured:
    """What fitted filters reject: of the tiles that they were calibrated on (`false_rejection_found`), of test tiles, which
    had no part in it, and of tiles that were made bad on purpose.
    """
    filters, rng, held_out, test = calibration.filter_set, np.random.default_rng(seed), tiles.held_out, tiles.test
    by_filter: dict[str, FilterMetrics] = {}
    bad: dict[str, np.ndarray] = {}
    unseen = filters(test) if len(test) else None
    for filter_ in filters.filters:
        name, threshold = filter_.name, filters.thresholds[filter_.name]
        found: FilterMetrics = {
            "threshold": threshold,
            "false_rejection_stated": config.false_rejection_of(name) if filter_.calibrated else None,
            "median_of_real": medians(calibration.held_out, filter_.column, tiles.held_out.rows["label"]),
            "false_rejection_found": _fraction_rejected(filter_, calibration.held_out, threshold),
        }
        if unseen is not None:
            found["false_rejection_of_test"] = _fraction_rejected(filter_, unseen, threshold)
            found["test_tiles"] = int(unseen[filter_.column].notna().sum())
        if name == "quality":
            spoilt, ways = degrade(held_out.images, rng)
            bad[name] = filter_.scores(replace(held_out, images=spoilt))[filter_.column].to_numpy()
            caught = pd.Series(filter_.rejects(bad[name], threshold)).groupby(ways).mean()
            found["spoilt_caught"] = {str(way): float(value) for way, value in caught.items()}
        if name == "near_copy":
            bad[name] = _scores_of_copies(filter_, tiles.train, rng)
            found["planted_caught"] = float(filter_.rejects(bad[name], threshold).mean())
        if type(filter_) is LabelFilter:
            found |= _accuracy(filter_, held_out)
        if type(filter_) is MaskFilter:
            found |= _certainty(filter_, test)
            if threshold is not None and (exchanged := _with_masks_of_others(held_out)) is not None:
                bad[name] = filter_.scores(exchanged)[filter_.column].to_numpy()
                found["exchanged_caught"] = float(filter_.rejects(bad[name], threshold).mean())
        by_filter[name] = found
    return Measured(_together(filters, held_out, unseen), by_filter, bad)


def medians(scores: pd.DataFrame, column: str, labels: pd.Series) -> dict[str, float]:
    """Label to the median of a column of scores; labels of which no tile has one are left out."""
    found = scores[column].groupby(labels.fillna("unlabelled").to_numpy(object)).median().dropna()
    return {str(label): float(value) for label, value in found.items()}


def _together(filters: FilterSet, held_out: Tiles, unseen: pd.DataFrame | None) -> AllFiltersMetrics:
    accepted = filters(held_out)["accepted"] if len(held_out) else pd.Series([], dtype=bool)
    found: AllFiltersMetrics = {
        "held_out_tiles": len(held_out),
        "false_rejection_of_all": float(1 - accepted.mean()),
    }
    if unseen is not None:
        found |= {"test_tiles": len(unseen), "false_rejection_of_all_of_test": float(1 - unseen["accepted"].mean())}
    return found


def _scores_of_copies(filter_: Filter, train: Tiles, rng: np.random.Generator) -> np.ndarray:
    some = train.images[np.unique(np.linspace(0, len(train) - 1, _MOST_PLANTED).astype(int))]
    copies = np.stack([disguised(image, rng) for image in some])
    return filter_.scores(replace(train, images=copies))[filter_.column].to_numpy()


def _with_masks_of_others(tiles: Tiles) -> Tiles | None:
    """The tiles whose masks are known, each with the mask of another that lies half of them away; of those whose masks differ. None if there are none."""
    known = tiles.part(MaskFilter.applies_to(tiles))
    masks = known.read("mask")
    if masks is None or len(known) < 2:
        return None
    others = np.roll(masks, len(masks) // 2, 0)
    differ = (masks != others).any((1, 2))
    return replace(known.part(differ), read=lambda _: others[differ]) if differ.any() else None


def _fraction_rejected(filter_: Filter, scores: pd.DataFrame, threshold: float | None) -> float | None:
    """Of the tiles that have what the filter looks at; None where none has, or nothing could be calibrated."""
    known = scores[filter_.column].dropna().to_numpy(float)
    return float(filter_.rejects(known, threshold).mean()) if len(known) and threshold is not None else None


def _accuracy(filter_: LabelFilter, held_out: Tiles) -> FilterMetrics:
    classes = filter_.ensemble.classes
    known = np.flatnonzero(held_out.rows["label"].isin(classes))
    if not len(known):
        return {}
    probabilities = filter_.ensemble.probabilities(held_out.features[known]).mean(0)
    truth = np.array([classes.index(label) for label in held_out.rows["label"].to_numpy(object)[known]])
    right = probabilities.argmax(1) == truth
    recall = {c: float(right[truth == k].mean()) for k, c in enumerate(classes) if (truth == k).any()}
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean(list(recall.values()))),
        "recall": recall,
        "calibration_error": expected_calibration_error(probabilities, truth),
    }


def _certainty(filter_: MaskFilter, test: Tiles) -> FilterMetrics:
    """How far the segmenter's certainty is from how often it is right, on tiles that nothing was fitted to."""
    sure, right = filter_.sure_and_right(test) if len(test) else (np.empty(0), np.empty(0, bool))
    if not len(sure):
        return {}
    return {**checked(sure, right, filter_.kept.facts.right(sure))}


def draw_calibration(calibration: Calibration, bad: dict[str, np.ndarray], path: Path) -> None:
    """A histogram a filter: real tiles that it was not fitted to, tiles that it should reject, and the threshold between."""
    from matplotlib.figure import Figure

    filters = calibration.filter_set
    figure = Figure(figsize=(7, 1.9 * max(len(filters.filters), 1)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(max(len(filters.filters), 1), 1))
    for axis, filter_ in zip(axes, filters.filters):
        name = filter_.name
        _histogram(axis, filter_, filters.thresholds[name], calibration.scores[name], bad.get(name))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _histogram(axis: Axes, filter_: Filter, threshold: float | None, real: np.ndarray, bad: np.ndarray | None) -> None:
    real = real[np.isfinite(real)]
    bad = None if bad is None else bad[np.isfinite(bad)]
    values = np.concatenate([real, bad if bad is not None else []])
    if not len(values):
        return
    low, high = np.quantile(values, [0.005, 1])
    bins = np.linspace(low, high, 50).tolist()
    axis.hist(np.clip(real, bins[0], None), bins, density=True, color="#5b3f9e", alpha=0.7, label="real, held out")
    if bad is not None:
        label = _BAD.get(filter_.name, "real, spoilt")
        axis.hist(np.clip(bad, bins[0], None), bins, density=True, color="#c8285a", alpha=0.5, label=label)
    if threshold is not None:
        side = "above" if filter_.high_is_bad else "below"
        axis.axvline(threshold, color="black", linewidth=1, label=f"rejected {side} {threshold:.3g}")
    axis.set_title(filter_.column, fontsize=9, loc="left")
    axis.tick_params(labelsize=8)
    axis.set_yticks([])
    axis.legend(fontsize=7, frameon=False)
