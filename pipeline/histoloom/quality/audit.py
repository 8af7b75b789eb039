"""What a set of synthetic tiles that leaves without real ones tells of the train split: copies, and who was in it.

Membership inference asks whether a real tile was trained on. The attacker has the tile, and the denoiser (Matsumoto et al. 2023, the loss
of diffusion models) or the samples alone (Chen et al. 2020, GAN-Leaks: the distance to the nearest sample).
"""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from histoloom.config.package import read_json
from histoloom.data.rows import held_out_rows, spread, train_rows
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.quality.denoising_error import denoising_errors
from histoloom.quality.filters.base import Tiles, tiles_of
from histoloom.quality.filters.filter_set import extractor_of
from histoloom.quality.filters.near_copy import CopyFilter
from histoloom.quality.intervals import FEW, Excess, near_copy_excess
from histoloom.registry import registered
from histoloom.sampling.diffusion_model import generator_sha256

_DRAWS = 1000
_MOST = 1000
"""Tiles of a kind that are looked at, evenly spread."""
LEAST = 20
"""Fewer tiles of either kind tell nothing."""


class Attack(TypedDict, total=False):
    """auc : probability that a train tile looks more like one than a held-out tile does; 0.5 is chance. interval : of 95 %, by bootstrap.

    over : what was drawn. train, held_out : tiles of each. All but these are absent where tiles are too few.
    """

    auc: float
    interval: list[float]
    over: str
    train: int
    held_out: int


class Audit(TypedDict, total=False):
    """near_copy : absent where no filter looked for copies among samples to evaluate. loss : absent where the denoiser makes no pictures.

    nearest_sample : absent where no tile leaves.
    """

    near_copy: Excess
    loss: Attack
    nearest_sample: Attack


def audit(study: Study, synthetic: list[tuple[TileStore, pd.DataFrame]], device: str) -> Audit:
    """Audit the tiles that leave: stores, and rows of each."""
    extractor, real = extractor_of(study.filters, device), study.real()
    train, held_out = (
        tiles_of(real, spread(rows, _MOST), extractor) for rows in (train_rows(real), held_out_rows(real.rows()))
    )
    groups, seed = (_groups(train), _groups(held_out)), study.params.seed
    found: Audit = {}
    if (excess := _copies(study)) is not None:
        found["near_copy"] = excess
    models = study.models.resolve()
    if registered("target", study.params.last.train_denoiser.target.name).reads == ("image",):
        seen, unseen = (
            -denoising_errors(models, generator_sha256(models), device, of.images, of.rows["tile_id"].to_numpy(str))
            for of in (train, held_out)
        )
        found["loss"] = attack(seen, unseen, groups, seed)
    some = [tiles_of(store, spread(rows, _MOST), extractor).features for store, rows in synthetic if len(rows)]
    if some:
        near = [nearness(tiles.features, np.concatenate(some)) for tiles in (train, held_out)]
        found["nearest_sample"] = attack(near[0], near[1], groups, seed)
    return found


def _groups(tiles: Tiles) -> np.ndarray:
    return tiles.rows["split_group"].to_numpy(str)


def _copies(study: Study) -> Excess | None:
    """From what the stages `train_filters` and `filter` measured."""
    paths = [study.reports(stage) / "metrics.json" for stage in ("train_filters", "filter")]
    calibrated, funnels = (read_json(path) if Path(path).is_file() else {} for path in paths)
    of_real, samples = calibrated.get(CopyFilter.name, {}), funnels.get("evaluate", {})
    flagged = samples.get("rejected_for", {}).get(CopyFilter.reason)
    if flagged is None or of_real.get("false_rejection_of_test") is None or not of_real.get("test_tiles"):
        return None
    return near_copy_excess(flagged, samples["synthetic"], of_real["false_rejection_of_test"], of_real["test_tiles"])


def attack(train: np.ndarray, held_out: np.ndarray, groups: tuple[np.ndarray, np.ndarray], seed: int) -> Attack:
    """How well a score tells train tiles from held-out ones.

    Parameters
    ----------
    train, held_out : (n,), (m,) scores, higher where a tile looks more like one that was trained on.
    groups : their split groups. Where each side has at least ten the bootstrap draws these, else tiles.
    """
    found: Attack = {"train": len(train), "held_out": len(held_out)}
    if min(len(train), len(held_out)) < LEAST:
        return found
    by_group = all(len(np.unique(of)) >= FEW for of in groups)
    parts = [np.unique(of, return_inverse=True)[1] if by_group else np.arange(len(of)) for of in groups]
    rng, draws = np.random.default_rng(seed), []
    for _ in range(_DRAWS):
        drawn = []
        for scores, of in zip((train, held_out), parts):
            count = np.bincount(rng.integers(0, of.max() + 1, of.max() + 1), minlength=of.max() + 1)
            drawn.append(np.repeat(scores, count[of]))
        draws.append(_auc(*drawn))
    interval = [float(value) for value in np.quantile(draws, [0.025, 0.975])]
    over = "split groups" if by_group else "tiles, of too few split groups"
    return {"auc": _auc(train, held_out), "interval": interval, "over": over, **found}


def nearness(features: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """(n,) minus the distance of each tile's features (n, d) from the nearest sample's (m, d)."""
    return -cdist(features, samples).min(1)


def _auc(first: np.ndarray, second: np.ndarray) -> float:
    """Probability that one of the first is higher, ties half (Mann & Whitney 1947)."""
    if not (len(first) and len(second)):
        return 0.5
    ranks = rankdata(np.concatenate([first, second]))[: len(first)]
    return float((ranks.sum() - len(first) * (len(first) + 1) / 2) / (len(first) * len(second)))
