"""How near pictures are to real tiles: kernel inception distance and realism, each beside its floor."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from histoloom.conditions.feature_extractors import ExtractorRecord, load_extractor
from histoloom.config.extractors import JUDGE
from histoloom.data.rows import held_out_rows, spread
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.quality.kid import Kid, KidInterval, kid, kid_interval
from histoloom.quality.realism import Sample, ToldApart, told_apart
from histoloom.sampling.given_pictures import Tiles, opened

LEAST = 20
"""Fewer real tiles can't be halved for a floor, and fewer pictures tell nothing."""
_SUBSETS, _MOST = 50, 2000


class Score(TypedDict, total=False):
    """What `score` measures.

    extractor : the network that both sets are looked at through.
    n : how many tiles of each set.
    kid : kernel inception distance (Binkowski et al. 2018): 0 for equal distributions, higher is worse, no unit. It depends on the extractor,
        so that it can't be compared with numbers of other networks.
    kid_interval : of 95 %; empty below 40 tiles of a set.
    kid_floor : the same distance between two halves of the real tiles. Nothing can be expected to score lower.
    realism : AUC of a classifier that tells real tiles from the pictures: 0.5 if it can't, 1 if it always can.
        It has `n` alone below 50 tiles of a set.
    realism_floor : the same AUC between the halves of the real tiles; `n` alone below 100 of them.
    """

    extractor: ExtractorRecord
    n: dict[str, int]
    kid: Kid
    kid_interval: KidInterval
    kid_floor: Kid
    realism: ToldApart
    realism_floor: ToldApart


def score(
    images: Tiles, against: Tiles | TileStore, *, rows: pd.DataFrame | None = None, seed: int = 0, device: str = "cpu"
) -> Score:
    """Measure how near pictures are to real tiles, as the stage `evaluate` does: through EfficientNet-Lite2 of ImageNet.

    Read `kid` beside `kid_floor`, and `realism` beside `realism_floor`: a floor is what real tiles score against other real tiles.

    Parameters
    ----------
    images : pictures, files of them, or an array (n, h, w, 3) uint8.
    against : real tiles, the same way; or a store, of which held-out tiles are taken, at most 2,000, evenly spread. Patients are known
        of a store alone: halves for the floors then share no patient, and with ten patients or more, intervals are over patients.
    rows : of the store, in place of the held-out ones.

    Raises
    ------
    HistoloomError
        for fewer than 20 tiles of either set, tiles of several sizes, or arrays of another form.
    """
    patients: np.ndarray | None = None
    if isinstance(against, TileStore):
        chosen = _chosen(against, rows)
        patients, against = chosen["split_group"].to_numpy(str), against.read(chosen)
    pictures, real = _array(images, "images"), _array(against, "against")
    if patients is None:
        patients = np.full(len(real), "")
    extractor = load_extractor(JUDGE, device)
    made, seen = _sample(extractor.features(pictures), "picture"), _sample(extractor.features(real), "real", patients)
    first, second = (_part(seen, half) for half in _halves(patients, seed))
    return {
        "extractor": extractor.record,
        "n": {"images": len(pictures), "against": len(real)},
        "kid": kid(made.features, seen.features, _SUBSETS, seed),
        "kid_interval": kid_interval(made.features, seen.features, seen.groups, seed),
        "kid_floor": kid(first.features, second.features, _SUBSETS, seed),
        "realism": told_apart(seen, made, seed),
        "realism_floor": told_apart(first, second, seed),
    }


def _chosen(store: TileStore, rows: pd.DataFrame | None) -> pd.DataFrame:
    rows = held_out_rows(store.rows()) if rows is None else rows
    if rows.empty:
        raise HistoloomError(f"{store.folder} holds no held-out tile (val or test) to measure against. Give rows.")
    return spread(rows, _MOST)


def _array(tiles: Tiles, name: str) -> np.ndarray:
    """(n, h, w, 3) uint8."""
    if not isinstance(tiles, np.ndarray):
        each = [np.asarray(opened(tile) if isinstance(tile, str | Path) else tile) for tile in tiles]
        if len(shapes := sorted({one.shape for one in each})) > 1:
            raise HistoloomError(f"{name} has tiles of shapes {shapes[0]} and {shapes[1]}. Give tiles of one size.")
        tiles = np.stack(each) if each else np.empty((0, 1, 1, 3), np.uint8)
    if tiles.ndim != 4 or tiles.shape[-1] != 3 or tiles.dtype != np.uint8:
        raise HistoloomError(f"{name} is {tiles.dtype} of shape {tiles.shape}. Give tiles (n, h, w, 3) uint8.")
    if len(tiles) < LEAST:
        raise HistoloomError(f"{name} holds {len(tiles)} tiles, which say nothing. Give {LEAST} at least.")
    return tiles


def _sample(features: np.ndarray, name: str, groups: np.ndarray | None = None) -> Sample:
    ids = np.array([f"{name}-{number}" for number in range(len(features))], object)
    return Sample(features, ids, np.full(len(features), name, object) if groups is None else groups)


def _part(of: Sample, where: np.ndarray) -> Sample:
    return Sample(*(values[where] for values in of))


def _halves(groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(m,) bool each: whole patients where that leaves enough tiles in both halves, else tiles at random."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(np.unique(groups))
    first = np.isin(groups, names[: len(names) // 2])
    if min(first.sum(), (~first).sum()) < max(2, len(groups) // 4):
        first = np.zeros(len(groups), bool)
        first[rng.permutation(len(groups))[: len(groups) // 2]] = True
    return first, ~first
