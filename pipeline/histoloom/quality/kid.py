"""Kernel inception distance of sets of tiles, on features, and its intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypedDict

import numpy as np
import torch
from scipy.stats import t
from torch_fidelity.metric_kid import kid_features_to_metric

from histoloom.quality.intervals import FEW

_PARTS = 20


class Kid(TypedDict):
    """Mean and standard deviation over subsets of so many tiles."""

    mean: float
    std: float
    subset_size: int


class KidInterval(TypedDict, total=False):
    """interval : of 95 %. over : what the real tiles were parted by. Empty where tiles are too few to be parted."""

    value: float
    interval: list[float]
    over: str


def kid(first: np.ndarray, second: np.ndarray, subsets: int, seed: int) -> Kid:
    """Kernel inception distance (Binkowski et al. 2018): mean and standard deviation over subsets of tiles.

    The deviation says how much subsets differ, and is no interval, which `kid_interval` gives.

    Parameters
    ----------
    first, second : (n, d) features; a subset takes half of the smaller set, at most 1,000.
    """
    size = max(2, min(1000, min(len(first), len(second)) // 2))
    out = kid_features_to_metric(
        *(torch.from_numpy(np.ascontiguousarray(of, np.float32)) for of in (first, second)),
        kid_subsets=subsets,
        kid_subset_size=size,
        rng_seed=seed,
        verbose=False,
    )
    mean, std = out["kernel_inception_distance_mean"], out["kernel_inception_distance_std"]
    return {"mean": mean, "std": std, "subset_size": size}


def kid_interval(synthetic: np.ndarray, real: np.ndarray, groups: np.ndarray, seed: int) -> KidInterval:
    """KID of all tiles, over pairs of different split groups, and its 95 % interval by the jackknife.

    Each group of real tiles, and each of twenty random parts of the samples, is left out in turn (Efron & Stein 1981).
    Samples count as independent.

    Parameters
    ----------
    synthetic, real : (n, d), (m, d) features.
    groups : (m,) split groups of the real tiles; fewer than ten tell nothing of others, and random parts take their place.
    """
    rng = np.random.default_rng(seed)
    by_group = len(set(groups)) >= FEW
    parts = np.unique(groups, return_inverse=True)[1] if by_group else rng.permutation(len(real)) % _PARTS
    own = rng.permutation(len(synthetic)) % _PARTS
    if min(len(real), len(synthetic)) < 2 * _PARTS:
        return {}
    sums = [_within(synthetic, own), _within(real, parts), _kernel_sums(synthetic, own, real, parts)]
    keep = [np.ones(own.max() + 1), np.ones(parts.max() + 1)]
    variance = _jackknife_variance(lambda *weights: _mmd(*sums, *weights), keep)
    value, reach = _mmd(*sums, *keep), t.ppf(0.975, len(keep[1]) - 1) * variance**0.5
    return {
        "value": float(value),
        "interval": [float(value - reach), float(value + reach)],
        "over": "split groups" if by_group else "tiles, of too few split groups",
    }


def kid_difference(first: np.ndarray, second: np.ndarray, real: np.ndarray, seed: int) -> list[float]:
    """95 % interval of the KID of the first samples minus that of the second, by the jackknife over parts of samples and of real tiles.

    Parameters
    ----------
    first, second : (n, d) features; where they are pairs, rows of one number belong together. real : (m, d).
    """
    rng = np.random.default_rng(seed)
    own, parts = (rng.permutation(len(of)) % min(_PARTS, len(of)) for of in (first, real))
    of_real = _within(real, parts)
    sums = [(_within(made, own), of_real, _kernel_sums(made, own, real, parts)) for made in (first, second)]

    def difference(*weights: np.ndarray) -> float:
        one, other = (_mmd(*of, *weights) for of in sums)
        return one - other

    keep = [np.ones(own.max() + 1), np.ones(parts.max() + 1)]
    value = difference(*keep)
    reach = t.ppf(0.975, len(keep[1]) - 1) * _jackknife_variance(difference, keep) ** 0.5
    return [float(value - reach), float(value + reach)]


def _jackknife_variance(statistic: Callable[..., float], keep: list[np.ndarray]) -> float:
    """Of a statistic of two weights, each part of each left out in turn."""
    variance = 0.0
    for side in (0, 1):
        left = []
        for number in range(len(keep[side])):
            weights = [k.copy() for k in keep]
            weights[side][number] = 0
            left.append(statistic(*weights))
        variance += (len(left) - 1) / len(left) * np.square(np.array(left) - np.mean(left)).sum()
    return variance


def _kernel_sums(first: np.ndarray, of_first: np.ndarray, second: np.ndarray, of_second: np.ndarray):
    """Sums (parts, parts) of KID's kernel over the pairs of tiles of two parts, and the pairs' number."""
    kernel = (first.astype(np.float64) @ second.T.astype(np.float64) / first.shape[1] + 1) ** 3
    one, other = (np.eye(of.max() + 1)[of] for of in (of_first, of_second))
    return one.T @ kernel @ other, one.sum(0)[:, None] * other.sum(0)


def _within(features: np.ndarray, of: np.ndarray):
    """As `_kernel_sums`, of a set with itself, without pairs within a part: tiles of one patient are alike, and would say
    that the patients are few, not that the samples are wrong."""
    apart = 1 - np.eye(of.max() + 1)
    return tuple(values * apart for values in _kernel_sums(features, of, features, of))


def _mmd(synthetic, real, between, of_synthetic: np.ndarray, of_real: np.ndarray) -> float:
    """Unbiased squared MMD (Gretton et al. 2012, eq. 3) of the parts that weigh 1."""
    terms = ((synthetic, of_synthetic, of_synthetic), (real, of_real, of_real), (between, of_synthetic, of_real))
    one, other, both = (a @ total @ b / (a @ pairs @ b) for (total, pairs), a, b in terms)
    return one + other - 2 * both
