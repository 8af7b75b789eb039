"""Filters: each scores tiles, and rejects those beyond a threshold calibrated on real held-out tiles.

A filter's threshold is where it would reject a stated share of real held-out tiles, so that its severity is known.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from pipeline.conditions.features import Extractor
from pipeline.config import TrainFilters
from pipeline.data.commit import write_json
from pipeline.data.schema import REJECT_REASONS
from pipeline.models.classifier import (
    LinearClassifier,
    calibrate,
    expected_calibration_error,
    fit_classifier,
    load_classifier,
)
from pipeline.quality.degrade import degrade
from pipeline.quality.measures import TissueRange, fit_range, load_range
from pipeline.quality.near_copy import CopyIndex, build_index, copy_scores

_COLUMN = {"quality": "quality_score", "label": "label_score", "near_copy": "copy_score"}


@dataclass(frozen=True)
class Filters:
    """Trained filters.

    quality : minus the distance of the tile's physical measures from real tissue's; rejected below its threshold
    label : probability of the tile's own label; rejected below
    copies : the train split; a tile is rejected above its threshold
    """

    quality: TissueRange
    label: LinearClassifier | None
    copies: CopyIndex
    thresholds: dict[str, float]

    def scores(self, images: np.ndarray, labels: list[str | None], extractor: Extractor) -> pd.DataFrame:
        """One row a tile: `quality_score`, `label_score`, `copy_score` and `nearest_train_tile`."""
        features = extractor.features(images)
        copy, nearest = copy_scores(images, extractor, self.copies)
        return pd.DataFrame(
            {
                "quality_score": self.quality.score(images),
                "label_score": _own_label(self.label, features, labels),
                "copy_score": copy,
                "nearest_train_tile": self.copies.tile_ids[nearest] if len(images) else np.array([], str),
            }
        )

    def judge(self, scores: pd.DataFrame, use: tuple[str, ...]) -> pd.DataFrame:
        """Add `accepted` and `reject_reasons` (joined by '; ', empty where accepted)."""
        reasons = [[] for _ in range(len(scores))]
        for name in use:
            values, threshold = scores[_COLUMN[name]].to_numpy(float), self.thresholds[name]
            bad = values > threshold if name == "near_copy" else values < threshold
            for place in np.flatnonzero(bad):
                reasons[place].append(REJECT_REASONS[name])
        return scores.assign(accepted=[not r for r in reasons], reject_reasons=["; ".join(r) for r in reasons])

    def save(self, folder: Path) -> None:
        self.quality.save(folder)
        if self.label is not None:
            self.label.save(folder, "label")
        save_file({"features": self.copies.features, "grey": self.copies.grey}, folder / "copies.safetensors")
        write_json(folder / "filters.json", {"thresholds": self.thresholds, "tile_ids": self.copies.tile_ids.tolist()})


def load_filters(folder: Path) -> Filters:
    facts = json.loads((folder / "filters.json").read_text(encoding="utf-8"))
    copies = CopyIndex(np.array(facts["tile_ids"]), **load_file(folder / "copies.safetensors"))
    label = load_classifier(folder, "label") if (folder / "label.json").exists() else None
    return Filters(load_range(folder), label, copies, facts["thresholds"])


def _own_label(model: LinearClassifier | None, features: np.ndarray, labels: list[str | None]) -> np.ndarray:
    """Probability of each tile's own label; NaN, which no threshold rejects, where there is no label to judge."""
    if model is None:
        return np.full(len(labels), np.nan)
    probabilities = model.probabilities(features)
    return np.array(
        [
            p[model.classes.index(label)] if label in model.classes else np.nan
            for p, label in zip(probabilities, labels)
        ],
        float,
    )


def train_filters(
    train: pd.DataFrame,
    train_images: np.ndarray,
    held_out: pd.DataFrame,
    held_out_images: np.ndarray,
    classes: tuple[str, ...],
    config: TrainFilters,
    extractor: Extractor,
    seed: int,
) -> tuple[Filters, dict]:
    """Train on the train split, calibrate on held-out tiles.

    Returns
    -------
    The filters, and what was measured on the held-out tiles: accuracy, calibration error, thresholds.
    """
    features, held = extractor.features(train_images), extractor.features(held_out_images)
    quality = fit_range(train_images)
    labelled = train["label"].notna().to_numpy()
    label, metrics = None, {}
    if train["label"].nunique() > 1:
        label = fit_classifier(features[labelled], train["label"][labelled].tolist(), classes)
        label = calibrate(label, held, held_out["label"].tolist())
        metrics = _measure(label, held, held_out["label"].tolist())
    filters = Filters(quality, label, build_index(train["tile_id"].to_numpy(str), features, train_images), {})
    scores = filters.scores(held_out_images, held_out["label"].tolist(), extractor)
    thresholds = {
        "quality": _quantile(scores["quality_score"], config.share("quality")),
        "label": _quantile(scores["label_score"], config.share("label")),
        "near_copy": _quantile(scores["copy_score"], 1 - config.share("near_copy")),
    }
    spoilt = degrade(held_out_images, np.random.default_rng(seed))
    caught = quality.score(spoilt) < thresholds["quality"]
    metrics |= {
        "held_out_tiles": len(held_out),
        "false_rejection": {name: config.share(name) for name in REJECT_REASONS},
        "thresholds": thresholds,
        "spoilt_caught": float(caught.mean()),
    }
    return Filters(filters.quality, filters.label, filters.copies, thresholds), metrics


def _quantile(values: pd.Series, share: float) -> float:
    known = values.dropna()
    return float(np.quantile(known, share)) if len(known) else 0.0


def _measure(label: LinearClassifier, features: np.ndarray, truth: list[str]) -> dict:
    known = [i for i, t in enumerate(truth) if t in label.classes]
    if not known:
        return {}
    probabilities = label.probabilities(features[known])
    index = np.array([label.classes.index(truth[i]) for i in known])
    right = probabilities.argmax(1) == index
    recall = {c: float(right[index == k].mean()) for k, c in enumerate(label.classes) if (index == k).any()}
    return {
        "label_accuracy": float(right.mean()),
        "label_balanced_accuracy": float(np.mean(list(recall.values()))),
        "label_recall": recall,
        "label_ece": expected_calibration_error(probabilities, index),
        "label_temperature": label.temperature,
    }
