"""A linear classifier on features: multinomial logistic regression."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression

from histoloom.errors import HistoloomError


@dataclass(frozen=True)
class LinearClassifier:
    """classes : names; mean, scale (d,); weights (d, classes); bias (classes,)."""

    classes: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        return ((features - self.mean) / self.scale) @ self.weights + self.bias

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(n, d) to (n, classes), each row adding up to 1."""
        return _softmax(self.logits(features))

    def save(self, folder: Path, name: str) -> None:
        save_file(
            {k: np.ascontiguousarray(getattr(self, k), np.float32) for k in ("mean", "scale", "weights", "bias")},
            folder / f"{name}.safetensors",
        )
        (folder / f"{name}.json").write_text(json.dumps({"classes": self.classes}) + "\n", encoding="utf-8")


def load_classifier(folder: Path, name: str) -> LinearClassifier:
    facts = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return LinearClassifier(tuple(facts["classes"]), **load_file(folder / f"{name}.safetensors"))


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def fit_classifier(features: np.ndarray, labels: list[str], classes: tuple[str, ...]) -> LinearClassifier:
    """Fit with classes weighted to balance.

    Raises
    ------
    HistoloomError
        when fewer than two classes have examples.
    """
    present = tuple(c for c in classes if c in set(labels))
    if len(present) < 2:
        raise HistoloomError(
            f"A classifier needs two classes, and the train split has {len(present)} "
            f"({', '.join(present) or 'none'}). Check the labels and the splits."
        )
    mean, scale = features.mean(0), features.std(0) + 1e-6
    model = LogisticRegression(C=0.01, max_iter=500, class_weight="balanced")
    model.fit((features - mean) / scale, [present.index(label) for label in labels])
    weights, bias = model.coef_.T, model.intercept_
    if len(present) == 2:
        weights, bias = np.concatenate([-weights / 2, weights / 2], 1), np.concatenate([-bias / 2, bias / 2])
    return LinearClassifier(present, mean, scale, weights, bias)


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, bins: int = 10) -> float:
    """Mean gap between confidence and accuracy over bins of confidence, weighted by their counts."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[place == b].mean() - right[place == b].mean()) * (place == b).mean()
        for b in range(bins)
        if (place == b).any()
    ]
    return float(sum(gaps))
