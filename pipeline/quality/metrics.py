"""Distances between sets of tiles, on features, through torch-fidelity: KID, FD, precision and recall.

Beside every distance stands its floor: the same distance between two sets of real tiles. n and the seed are with it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

_LEAST = 10


def kid(first: np.ndarray, second: np.ndarray, subsets: int, seed: int) -> dict[str, float]:
    """Kernel inception distance (Binkowski et al. 2018): mean and standard deviation over subsets.

    Parameters
    ----------
    first, second : (n, d) features; a subset takes half of the smaller set, at most 1,000.
    """
    size = max(2, min(1000, min(len(first), len(second)) // 2))
    out = kid_features_to_metric(
        _tensor(first), _tensor(second), kid_subsets=subsets, kid_subset_size=size, rng_seed=seed, verbose=False
    )
    return {
        "mean": out["kernel_inception_distance_mean"],
        "std": out["kernel_inception_distance_std"],
        "subset_size": size,
    }


def fd(first: np.ndarray, second: np.ndarray, seed: int) -> dict[str, float]:
    """Frechet distance (Heusel et al. 2017) at equal n, since it falls with n whatever the sets."""
    n = min(len(first), len(second))
    draw = np.random.default_rng(seed)
    statistics = [
        fid_features_to_statistics(_tensor(part[draw.permutation(len(part))[:n]])) for part in (first, second)
    ]
    return {"value": fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"], "n": n}


def precision_recall(real: np.ndarray, synthetic: np.ndarray, neighbours: int) -> dict[str, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019)."""
    out = prc_features_to_metric(
        _tensor(real), _tensor(synthetic), prc_neighborhood=neighbours, prc_batch_size=10000, verbose=False
    )
    return {"precision": float(out["precision"]), "recall": float(out["recall"])}


def compare(
    synthetic: np.ndarray, real: np.ndarray, other_real: np.ndarray, *, subsets: int, neighbours: int, seed: int
) -> dict:
    """All distances of synthetic to real tiles beside their floors.

    Parameters
    ----------
    real : held-out tiles, the reference.
    other_real : real tiles of other groups (train); its distance to `real` is a floor, as are `real`'s own halves.

    Returns
    -------
    Empty where a set has fewer than ten tiles, because nothing could be said.
    """
    if min(len(synthetic), len(real), len(other_real)) < _LEAST:
        return {}
    order = np.random.default_rng(seed).permutation(len(real))
    halves = real[order[::2]], real[order[1::2]]
    n = min(len(synthetic), len(real), len(other_real))
    draw = np.random.default_rng(seed + 1)
    equal = {
        name: part[draw.permutation(len(part))[:n]]
        for name, part in (("synthetic", synthetic), ("real", real), ("other", other_real))
    }
    return {
        "n": {"synthetic": len(synthetic), "real": len(real), "other_real": len(other_real)},
        "seed": seed,
        "kid": kid(synthetic, real, subsets, seed),
        "kid_floor": kid(other_real, real, subsets, seed),
        "kid_floor_halves": kid(*halves, subsets, seed),
        "fd": fd(equal["synthetic"], equal["real"], seed),
        "fd_floor": fd(equal["other"], equal["real"], seed),
        **precision_recall(equal["real"], equal["synthetic"], neighbours),
        "floor": precision_recall(equal["real"], equal["other"], neighbours),
    }


def _tensor(features: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(features, np.float32))
