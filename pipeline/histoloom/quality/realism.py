"""How easily real and synthetic tiles are told apart: linear classifiers on features, each judged by tiles that it was not fitted to.

A classifier two-sample test (Lopez-Paz & Oquab 2017). Its log-odds, corrected for the sizes of the sets, are the log-ratio of the two
densities (Sugiyama et al. 2012, ch. 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np
from sklearn.linear_model import LogisticRegression

from histoloom.data.seeds import item_seed
from histoloom.learners.linear import fit_classifier
from histoloom.quality.intervals import FEW

LEAST = 50
"""Fewer tiles of either kind tell nothing."""
_FOLDS = 5
_DRAWS = 1000
_KINDS = ("synthetic", "real")


class Sample(NamedTuple):
    """Tiles by their features (n, d), their ids (n,) and their split groups (n,)."""

    features: np.ndarray
    ids: np.ndarray
    groups: np.ndarray


class ToldApart(TypedDict, total=False):
    """How easily two sets of tiles are told apart.

    auc : probability that a real tile looks more real than one of the other set; 0.5 is chance, 1 is always.
    interval : of 95 %, by bootstrap. over : what of the real tiles was drawn. n : tiles of each set.
    All but `n` are absent where a set is too small to tell.
    """

    auc: float
    interval: list[float]
    over: str
    n: dict[str, int]


@dataclass(frozen=True)
class TwoSample:
    """Classifiers of real against other tiles, one for each fold, fitted to the other folds.

    weights, bias : (d, folds) and (folds,), of features to the log-ratio of densities, real over other.
    folds : split group to fold; other tiles are dealt out by a hash of their ids.
    """

    weights: np.ndarray
    bias: np.ndarray
    folds: dict[str, int]

    def folds_of(self, tiles: Sample) -> np.ndarray:
        return _folds_of(tiles, self.folds, len(self.bias))

    def log_ratios(self, tiles: Sample) -> np.ndarray:
        """(n,), of each tile by the classifier that was not fitted to its fold."""
        every = tiles.features @ self.weights + self.bias
        return every[np.arange(len(every)), self.folds_of(tiles)]


def fit_two_sample(real: Sample, other: Sample) -> TwoSample:
    """Classifiers whose log-odds are made honest on the tiles left out (Platt 1999), so that few tiles don't overstate a ratio."""
    found = _cross_fitted(real, other)
    odds = np.concatenate([found.log_ratios(tiles) for tiles in (real, other)])
    platt = LogisticRegression(C=1e6, class_weight="balanced").fit(odds[:, None], np.arange(len(odds)) < len(real.ids))
    slope, shift = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    if slope <= 0:  # nothing that holds for tiles left out tells them apart
        slope = shift = 0.0
    return TwoSample(found.weights * slope, found.bias * slope + shift, found.folds)


def _cross_fitted(real: Sample, other: Sample) -> TwoSample:
    """Classifiers of real tiles, whose split groups are dealt out to folds, and of others, as they were fitted.

    A tile of the others whose split group is among the real ones' lies in that group's fold: it may have been made under
    conditions of them.
    """
    folds = _dealt(real.groups)
    count = max(folds.values()) + 1 if folds else _FOLDS
    features = np.concatenate([real.features, other.features]).astype(np.float64)
    own = np.concatenate([_folds_of(tiles, folds, count) for tiles in (real, other)])
    names = np.repeat(_KINDS[::-1], [len(real.ids), len(other.ids)])
    weights, bias = np.zeros((features.shape[1], count)), np.zeros(count)
    for fold in range(count):
        found = fit_classifier(features[own != fold], names[own != fold].tolist(), _KINDS)
        weights[:, fold] = (found.weights[:, 1] - found.weights[:, 0]) / found.scale
        bias[fold] = found.bias[1] - found.bias[0] - found.mean @ weights[:, fold]
    return TwoSample(weights, bias, folds)


def told_apart(real: Sample, other: Sample, seed: int) -> ToldApart:
    """AUC of the cross-fitted classifiers, pairs of one fold alone compared.

    Its bootstrap draws the split groups of the real tiles where there are at least ten, else tiles, and tiles of the others.
    """
    n = {"real": len(real.ids), "other": len(other.ids)}
    if min(n.values()) < LEAST:
        return {"n": n}
    fitted = _cross_fitted(real, other)
    scores = [fitted.log_ratios(tiles) for tiles in (real, other)]
    apart = np.equal.outer(fitted.folds_of(real), fitted.folds_of(other)).astype(np.float32)
    won = apart * (np.greater.outer(*scores) + np.float32(0.5) * np.equal.outer(*scores))
    names, of = np.unique(real.groups, return_inverse=True)
    by_group = len(names) >= FEW
    of = of if by_group else np.arange(len(of))
    rng = np.random.default_rng(seed)
    drawn, others = (_drawn(count, rng) for count in (of.max() + 1, n["other"]))
    drawn = drawn[:, of]
    sums = [np.einsum("bn,bn->b", drawn @ pairs, others) for pairs in (won, apart)]
    values = sums[0] / np.where(sums[1] > 0, sums[1], np.nan)
    low, high = np.nanquantile(values, [0.025, 0.975])
    return {
        "auc": float(won.sum(dtype=np.float64) / apart.sum(dtype=np.float64)),
        "interval": [float(low), float(high)],
        "over": "split groups" if by_group else "tiles, of too few split groups",
        "n": n,
    }


def _drawn(count: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` things is drawn, with replacement, (draws, count)."""
    return np.stack([np.bincount(rng.integers(0, count, count), minlength=count) for _ in range(_DRAWS)]).astype("f4")


def _dealt(groups: np.ndarray) -> dict[str, int]:
    """Split group to one of at most five folds of about equal size; empty for one group, whose tiles are dealt out instead."""
    names, sizes = np.unique(groups.astype(str), return_counts=True)
    if len(names) < 2:
        return {}
    filled = np.zeros(min(_FOLDS, len(names)), int)
    folds: dict[str, int] = {}
    for place in np.argsort(-sizes, kind="stable"):
        folds[str(names[place])] = int(filled.argmin())
        filled[filled.argmin()] += sizes[place]
    return folds


def _folds_of(tiles: Sample, folds: dict[str, int], count: int) -> np.ndarray:
    pairs = zip(tiles.ids.astype(str), tiles.groups.astype(str))
    return np.array([folds.get(group, item_seed(0, tile) % count) for tile, group in pairs], int)
