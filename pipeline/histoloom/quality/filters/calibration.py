"""What the filters' calibration rests on: measures of them on real held-out tiles and on tiles spoilt or copied on purpose,
and a picture of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.config import TrainFilters
from histoloom.learners.linear import expected_calibration_error
from histoloom.quality.degrade import degrade
from histoloom.quality.filters.base import Filter, Tiles
from histoloom.quality.filters.judge import Judge
from histoloom.quality.filters.labels import LabelFilter
from histoloom.quality.plant import disguised

_MOST_PLANTED = 64


def measure_judge(
    judge: Judge, held_out: Tiles, train: Tiles, test: Tiles, scores: pd.DataFrame, config: TrainFilters, seed: int
) -> tuple[dict, dict[str, np.ndarray]]:
    """Measures of a fitted judge: what it rejects of the tiles that it was calibrated on (`false_rejection_found`), and of
    test tiles, which had no part in it.

    Returns
    -------
    Numbers by name; and by filter the scores of tiles that it should reject, where such can be made.
    """
    rng, found, bad = np.random.default_rng(seed), {}, {}
    unseen = judge(test) if len(test) else None
    for filter_ in judge.filters:
        threshold = judge.thresholds[filter_.name]
        share = _share_rejected(filter_, scores, threshold)
        stated = config.share(filter_.name)
        found[filter_.name] = {"threshold": threshold, "false_rejection_stated": stated, "false_rejection_found": share}
        if unseen is not None:
            found[filter_.name]["false_rejection_of_test"] = _share_rejected(filter_, unseen, threshold)
            found[filter_.name]["test_tiles"] = int(unseen[filter_.column].notna().sum())
        if filter_.name == "quality":
            spoilt, ways = degrade(held_out.images, rng)
            bad["quality"] = filter_.scores(replace(held_out, images=spoilt))[filter_.column].to_numpy()
            caught = pd.Series(filter_.rejects(bad["quality"], threshold)).groupby(ways).mean()
            found["quality"]["spoilt_caught"] = {way: float(value) for way, value in caught.items()}
        if filter_.name == "near_copy":
            some = train.images[np.unique(np.linspace(0, len(train) - 1, _MOST_PLANTED).astype(int))]
            copies = np.stack([disguised(image, rng) for image in some])
            bad["near_copy"] = filter_.scores(replace(train, images=copies))[filter_.column].to_numpy()
            found["near_copy"]["planted_caught"] = float(filter_.rejects(bad["near_copy"], threshold).mean())
        if type(filter_) is LabelFilter:
            found["label"] |= _accuracy(filter_, held_out)
    accepted = judge(held_out)["accepted"] if len(held_out) else pd.Series([], dtype=bool)
    of_all = {"held_out_tiles": len(held_out), "false_rejection_of_all": float(1 - accepted.mean())}
    if unseen is not None:
        of_all |= {"test_tiles": len(test), "false_rejection_of_all_of_test": float(1 - unseen["accepted"].mean())}
    return of_all | found, bad


def _share_rejected(filter_: Filter, scores: pd.DataFrame, threshold: float | None) -> float | None:
    """Of the tiles that have what the filter looks at; None where none has, or nothing could be calibrated."""
    known = scores[filter_.column].dropna().to_numpy(float)
    return float(filter_.rejects(known, threshold).mean()) if len(known) and threshold is not None else None


def _accuracy(filter_: LabelFilter, held_out: Tiles) -> dict:
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


def draw_calibration(judge: Judge, calibrated: dict[str, np.ndarray], bad: dict[str, np.ndarray], path: Path) -> None:
    """A histogram a filter: real tiles that it was not fitted to, tiles that it should reject, and the threshold between."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 1.9 * max(len(judge.filters), 1)), layout="constrained")
    axes = np.atleast_1d(figure.subplots(max(len(judge.filters), 1), 1))
    for axis, filter_ in zip(axes, judge.filters):
        _histogram(axis, filter_, judge.thresholds[filter_.name], calibrated[filter_.name], bad.get(filter_.name))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def _histogram(axis, filter_: Filter, threshold: float | None, real: np.ndarray, bad: np.ndarray | None) -> None:
    real = real[np.isfinite(real)]
    bad = None if bad is None else bad[np.isfinite(bad)]
    values = np.concatenate([real, bad if bad is not None else []])
    if not len(values):
        return
    bins = np.linspace(*np.quantile(values, [0.005, 1]), 50)
    axis.hist(np.clip(real, bins[0], None), bins, density=True, color="#5b3f9e", alpha=0.7, label="real, held out")
    if bad is not None:
        label = "copies, disguised" if filter_.name == "near_copy" else "real, spoilt"
        axis.hist(np.clip(bad, bins[0], None), bins, density=True, color="#c8285a", alpha=0.5, label=label)
    if threshold is not None:
        side = "above" if filter_.high_is_bad else "below"
        axis.axvline(threshold, color="black", linewidth=1, label=f"rejected {side} {threshold:.3g}")
    axis.set_title(filter_.column, fontsize=9, loc="left")
    axis.tick_params(labelsize=8)
    axis.set_yticks([])
    axis.legend(fontsize=7, frameon=False)
