"""How far a tile lies from the real tiles of its class, in features. A tile that is like no train tile is not trusted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA

from histoloom.quality.filters.base import Filter, Fitting, Tiles

_AXES = 48
_TILES_AN_AXIS = 10
"""At least so many tiles a component, lest the components fit the train tiles alone."""
_LEAST_TILES = 2 * _AXES
"""A class with fewer has too few for a covariance of its own, and takes the one that all classes have about their means."""
_ANY = ""


@dataclass(frozen=True)
class DistanceFilter(Filter):
    """Mahalanobis distance from the tile's class (Lee et al. 2018), on principal components of features.

    Covariances are shrunk (Ledoit & Wolf 2004). The part of a tile that lies off the components counts by its variance, alike
    in all directions (Tipping & Bishop 1999). Tiles of no class, or of one that train lacks, are compared with all.

    mean : (d,) of features
    axes : (d, k) principal components
    classes : c names, '' for all
    centres, precisions : (c, k) and (c, k, k), of each class
    rest : (1,) variance off the components
    """

    mean: np.ndarray
    axes: np.ndarray
    classes: tuple[str, ...]
    centres: np.ndarray
    precisions: np.ndarray
    rest: np.ndarray
    name = "distance"
    reason = "unlike the real tiles of its class"
    cross_fitted = True
    sees_features = True
    high_is_bad = True

    @classmethod
    def fit(cls, fitting: Fitting):
        features, labels = fitting.train.features, fitting.train.rows["label"].fillna(_ANY).to_numpy(str)
        mean = features.mean(0)
        count = int(np.clip(len(features) // _TILES_AN_AXIS, 1, _AXES))
        axes = PCA(min(count, *features.shape), svd_solver="covariance_eigh").fit(features).components_.T
        reduced = (features - mean) @ axes
        rest = _off(features - mean, axes).mean() / max(len(axes) - axes.shape[1], 1)
        named = {name: reduced[labels == name] for name in sorted(set(labels) - {_ANY})}
        parts = named | {_ANY: reduced}
        within = ledoit_wolf(np.concatenate([part - part.mean(0) for part in (named or parts).values()]))[0]
        precisions = [np.linalg.inv(ledoit_wolf(p)[0] if len(p) >= _LEAST_TILES else within) for p in parts.values()]
        centres = np.stack([part.mean(0) for part in parts.values()])
        kept = np.ascontiguousarray(axes)
        return cls(mean, kept, tuple(parts), centres, np.stack(precisions), np.array([max(rest, 1e-9)]))

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        reduced = (tiles.features - self.mean) @ self.axes
        names = tiles.rows["label"].fillna(_ANY)
        which = np.array([self.classes.index(n if n in self.classes else _ANY) for n in names], int)
        offset = reduced - self.centres[which]
        squared = np.einsum("ni,nij,nj->n", offset, self.precisions[which], offset)
        squared = squared + _off(tiles.features - self.mean, self.axes) / self.rest
        return pd.DataFrame({self.column: np.sqrt(np.maximum(squared, 0))})

    def save(self, folder: Path) -> None:
        arrays = {name: getattr(self, name) for name in ("mean", "axes", "centres", "precisions", "rest")}
        save_file({n: np.ascontiguousarray(a, np.float32) for n, a in arrays.items()}, folder / "distance.safetensors")
        (folder / "distance.json").write_text(json.dumps({"classes": self.classes}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path):
        classes = json.loads((folder / "distance.json").read_text(encoding="utf-8"))["classes"]
        return cls(classes=tuple(classes), **load_file(folder / "distance.safetensors"))


def _off(features: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Squared length (n,) of the part of features (n, d) that lies off the axes (d, k)."""
    return np.square(features - features @ axes @ axes.T).sum(1)
