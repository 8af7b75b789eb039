"""Distances between sets of tiles, on features, through torch-fidelity: KID, FD, precision and recall.

Beside every distance stands its floor: the same distance between two sets of real tiles. n and the seed are with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pandas as pd
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from histoloom.quality.kid import Kid, KidInterval, kid, kid_interval

_LEAST = 10


class Frechet(TypedDict):
    """n : tiles of each set."""

    value: float
    n: int


class Manifold(TypedDict, total=False):
    """precision, recall, coverage and authenticity in [0, 1]; density may be above 1."""

    precision: float
    recall: float
    density: float
    coverage: float
    authenticity: float


class InceptionScore(TypedDict):
    """Mean and standard deviation over parts of the tiles."""

    mean: float
    std: float


class ClipScore(TypedDict, total=False):
    """Mean cosines of tiles with their own captions, and with captions dealt at random; empty where none has a caption."""

    own: float
    shuffled: float


class Comparison(Manifold, total=False):
    """Distances of synthetic to real tiles, and beside each its floor; empty where a set is too small to say anything.

    n : tiles of `synthetic`, `real` and `other_real`.
    """

    n: dict[str, int]
    seed: int
    kid: Kid
    kid_interval: KidInterval
    kid_floor: Kid
    kid_floor_halves: Kid
    fd: Frechet
    fd_floor: Frechet
    floor: Manifold
    inception_score: InceptionScore
    inception_score_floor: InceptionScore
    clip_score: ClipScore
    clip_score_floor: ClipScore


@dataclass(frozen=True)
class FeatureSets:
    """Features of the tiles that are compared.

    synthetic : (n, d)
    real : (m, d) of held-out tiles, the reference
    other_real : (k, d) of train tiles; their distance to `real` is a floor, as is that of `real`'s own halves, and
        authenticity is measured against them
    groups : (m,) split groups of `real`
    """

    synthetic: np.ndarray
    real: np.ndarray
    other_real: np.ndarray
    groups: np.ndarray


def fd(first: np.ndarray, second: np.ndarray, seed: int) -> Frechet:
    """Frechet distance (Heusel et al. 2017) at equal n, since it falls with n whatever the sets."""
    n = min(len(first), len(second))
    draw = np.random.default_rng(seed)
    statistics = [
        fid_features_to_statistics(_tensor(part[draw.permutation(len(part))[:n]])) for part in (first, second)
    ]
    return {"value": fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"], "n": n}


def precision_recall(real: np.ndarray, synthetic: np.ndarray, neighbours: int) -> Manifold:
    """Improved precision and recall (Kynkaanniemi et al. 2019): the fraction of samples among real tiles, and that of real
    tiles among samples."""
    out = prc_features_to_metric(
        _tensor(synthetic), _tensor(real), prc_neighborhood=neighbours, prc_batch_size=10000, verbose=False
    )
    return {"precision": float(out["precision"]), "recall": float(out["recall"])}


def density_coverage(real: np.ndarray, synthetic: np.ndarray, neighbours: int) -> Manifold:
    """Density and coverage (Naeem et al. 2020, eqs. 3 and 4): how many real neighbourhoods a sample lies in, over
    `neighbours`, and the fraction of real tiles with a sample in their neighbourhood. (n, d) and (m, d) features.
    """
    radii = _nearest(real, real, neighbours + 1)[:, -1]  # the first is the tile itself
    inside = _distances(real, synthetic) <= radii[:, None]
    return {"density": float(inside.sum() / (neighbours * len(synthetic))), "coverage": float(inside.any(1).mean())}


def authenticity(train: np.ndarray, synthetic: np.ndarray) -> float:
    """Fraction of samples that lie farther from their nearest train tile than that tile does from its own nearest (Alaa et al.
    2022, AuthPct over 100); about a half, where samples are as far from train tiles as those are from each other.
    """
    apart = _distances(synthetic, train)
    nearest = apart.argmin(1)
    own = _nearest(train, train, 2)[:, 1]
    return float((apart[np.arange(len(synthetic)), nearest] > own[nearest]).mean())


def inception_score(logits: np.ndarray, seed: int) -> InceptionScore:
    """Inception score (Salimans et al. 2016), exp of the mean KL divergence of p(y | x) from p(y), over ten parts.

    Of histology it says little: the classes of the logits (n, c) are those of ImageNet.
    """
    out = isc_features_to_metric(torch.from_numpy(logits), splits=min(10, len(logits)), rng_seed=seed)
    return {"mean": out["inception_score_mean"], "std": out["inception_score_std"]}


def clip_score(
    compare_text: Callable[[np.ndarray, list[str]], np.ndarray], images: np.ndarray, captions: pd.Series
) -> ClipScore:
    """Mean cosine of tiles with their own captions (Hessel et al. 2021, unscaled), and with captions dealt at random.

    Parameters
    ----------
    compare_text : tiles and captions to cosines (n, captions).
    """
    said = captions.fillna("").ne("").to_numpy()
    names, which = np.unique(captions[said].to_numpy(str), return_inverse=True)
    if not len(which):
        return {}
    cosines = compare_text(images[said], names.tolist())
    return {
        "own": float(cosines[np.arange(len(which)), which].mean()),
        "shuffled": float((cosines @ (np.bincount(which) / len(which))).mean()),
    }


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return torch.cdist(_tensor(first), _tensor(second), compute_mode="donot_use_mm_for_euclid_dist").numpy()


def _nearest(first: np.ndarray, second: np.ndarray, count: int) -> np.ndarray:
    """The distances (n, count) of each of the first to its nearest of the second, sorted."""
    return np.sort(np.partition(_distances(first, second), min(count, len(second)) - 1, axis=1)[:, :count], axis=1)


def compare(features: FeatureSets, *, subsets: int, neighbours: int, seed: int) -> Comparison:
    """All distances of synthetic to real tiles beside their floors.

    FD, precision, recall, density and coverage are taken at equal n. Of a set with fewer than ten tiles nothing is said.
    """
    synthetic, real, other_real = features.synthetic, features.real, features.other_real
    n = min(len(synthetic), len(real), len(other_real))
    if n < _LEAST:
        return {}
    order = np.random.default_rng(seed).permutation(len(real))
    draw = np.random.default_rng(seed + 1)
    some, some_real, some_other = (part[draw.permutation(len(part))[:n]] for part in (synthetic, real, other_real))
    return {
        "n": {"synthetic": len(synthetic), "real": len(real), "other_real": len(other_real)},
        "seed": seed,
        "kid": kid(synthetic, real, subsets, seed),
        "kid_interval": kid_interval(synthetic, real, features.groups, seed),
        "kid_floor": kid(other_real, real, subsets, seed),
        "kid_floor_halves": kid(real[order[::2]], real[order[1::2]], subsets, seed),
        "fd": fd(some, some_real, seed),
        "fd_floor": fd(some_other, some_real, seed),
        **_manifold(some_real, some, neighbours),
        "authenticity": authenticity(other_real, synthetic),
        "floor": {**_manifold(some_real, some_other, neighbours), "authenticity": authenticity(other_real, real)},
    }


def _manifold(real: np.ndarray, other: np.ndarray, neighbours: int) -> Manifold:
    return {**precision_recall(real, other, neighbours), **density_coverage(real, other, neighbours)}


def _tensor(features: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(features, np.float32))
