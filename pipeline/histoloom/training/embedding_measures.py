"""What an embedding of tiles is worth, measured without a task: whether it collapsed, and whether neighbours are alike."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import pandas as pd
import torch

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.conditions.tile_encoder import FittedTileEncoder, as_extractor, brought_to
from histoloom.data.rows import spread, val_rows
from histoloom.data.store import TileStore
from histoloom.progress import console
from histoloom.training.run import step_generator
from histoloom.training.tile_encoder import MOST_FIT_TILES, features_of
from histoloom.training.views import side_before, view

COLLAPSED = 2.0
"""Effective rank below which an embedding tells next to nothing."""
_BATCH = 64


class Agreement(TypedDict, total=False):
    """Of held-out tiles with a label, each compared with train tiles of other slides.

    tiles : how many were compared. neighbour : share whose nearest neighbour has their label. by_chance : the same of a neighbour
    drawn evenly. of_efficientnet_lite0 : the same as `neighbour`, through that network.
    """

    tiles: int
    neighbour: float
    by_chance: float
    of_efficientnet_lite0: float


class EmbeddingMetrics(TypedDict, total=False):
    """Of held-out tiles, and of train tiles where there are none.

    tiles : how many were looked at. size : channels. effective_rank : see `effective_rank`. alignment : of two views of a tile.
    uniformity : see `uniformity`. neighbours : where tiles have labels.
    """

    tiles: int
    size: int
    effective_rank: float
    alignment: float
    uniformity: float
    neighbours: Agreement


def measure_embedding(
    encoder: FittedTileEncoder, store: TileStore, train: pd.DataFrame, seed: int, device: str
) -> EmbeddingMetrics:
    """Measure an encoder on val tiles; a collapse is said."""
    val, known = val_rows(store), spread(train, MOST_FIT_TILES)
    tower = as_extractor(encoder.model, device)
    features = features_of(tower, store, val)
    placed = unit(features, encoder.mean, encoder.std)
    first, second = _views(encoder, store, val, seed, device)
    found: EmbeddingMetrics = {
        "tiles": len(val),
        "size": tower.size,
        "effective_rank": effective_rank(features),
        "alignment": alignment(first, second),
        "uniformity": uniformity(placed),
    }
    if found["effective_rank"] < COLLAPSED:
        console.print(
            f"train_encoders: image: the embedding has collapsed: of {tower.size} channels the effective rank is "
            f"{found['effective_rank']:.1f}. It tells tiles apart by little or nothing. Lower learning_rate, take more steps, or another method."
        )
    agreement = neighbour_agreement(
        placed, val, unit(features_of(tower, store, known), encoder.mean, encoder.std), known
    )
    if agreement:
        other = load_extractor("efficientnet-lite0", device)
        theirs, of_val = features_of(other, store, known), features_of(other, store, val)
        fit = theirs.mean(0), theirs.std(0) + 1e-6
        agreement["of_efficientnet_lite0"] = neighbour_agreement(unit(of_val, *fit), val, unit(theirs, *fit), known)[
            "neighbour"
        ]
        found["neighbours"] = agreement
    return found


def _views(
    encoder: FittedTileEncoder, store: TileStore, rows: pd.DataFrame, seed: int, device: str
) -> tuple[np.ndarray, np.ndarray]:
    """Two views of each tile, embedded: (n, d) of unit length each."""
    side, generator = encoder.model.sizes.image_px, step_generator(seed, -1)
    out: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for images in store.batches(rows, _BATCH):
        tiles = torch.from_numpy(images).permute(0, 3, 1, 2)
        before = (255 * brought_to(tiles, side_before(side, tiles.shape[-1]))).round().to(torch.uint8)
        for kept in out:
            with torch.inference_mode():
                kept.append(encoder.model(view(before, side, generator).to(device)).float().cpu().numpy())
    first, second = (unit(np.concatenate(kept), encoder.mean, encoder.std) for kept in out)
    return first, second


def unit(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(n, d) features, standardised as a denoiser is given them, and brought to unit length."""
    values = (features - mean) / std
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def effective_rank(features: np.ndarray) -> float:
    """exp of the entropy of the singular values of centred features (n, d): from 1, all on a line, to d (Roy & Vetterli 2007).

    0 where all are one.
    """
    centred = features.astype(np.float64) - features.mean(0)
    values = np.linalg.svd(centred, compute_uv=False)
    if values.sum() <= 1e-6 * max(float(np.abs(features).max(initial=0)), 1e-12) * len(features):
        return 0.0
    share = values / values.sum()
    return float(np.exp(-(share * np.log(np.maximum(share, 1e-300))).sum()))


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Mean squared distance of two views of a tile, (n, d) of unit length (Wang & Isola 2020): 0 the same, 2 unrelated."""
    return float(np.square(first - second).sum(1).mean())


def uniformity(features: np.ndarray) -> float:
    """Log of the mean of exp(-2 d^2) over pairs of tiles, (n, d) of unit length (Wang & Isola 2020): 0 all the same; lower is better."""
    lengths, count = np.square(features).sum(1), len(features)
    near = np.exp(-2 * np.maximum(lengths[:, None] + lengths - 2 * features @ features.T, 0))
    return float(np.log((near.sum() - np.trace(near)) / (count * (count - 1)))) if count > 1 else 0.0


def neighbour_agreement(
    queries: np.ndarray, of_queries: pd.DataFrame, known: np.ndarray, of_known: pd.DataFrame
) -> Agreement:
    """Whether the nearest neighbour in another slide has a tile's label; empty where no tile can be asked.

    Parameters
    ----------
    queries, known : (n, d) and (m, d) of unit length.
    of_queries, of_known : their rows, with `slide_id` and `label`.
    """
    labels, slides = (of_known[name].to_numpy(object) for name in ("label", "slide_id"))
    has = of_known["label"].notna().to_numpy()
    right, chance = [], []
    for features, slide, label in zip(queries, of_queries["slide_id"], of_queries["label"]):
        other = has & (slides != slide)
        if pd.isna(label) or not other.any():
            continue
        nearest = np.flatnonzero(other)[np.argmax(known[other] @ features)]
        right.append(labels[nearest] == label)
        chance.append(np.mean(labels[other] == label))
    if not right:
        return {}
    return {"tiles": len(right), "neighbour": float(np.mean(right)), "by_chance": float(np.mean(chance))}
