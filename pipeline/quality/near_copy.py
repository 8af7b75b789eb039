"""How near a tile is to a tile of the train split, under flips, turns and small shifts.

Candidates come from features of the eight turned and mirrored forms; each is then checked by sliding the tile's
middle over the candidate (normalised cross-correlation), which a mere likeness does not survive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from skimage.feature import match_template
from skimage.transform import resize

from pipeline.conditions.features import Extractor

_COMPARE_PX = 32
_MARGIN = 0.25
_CANDIDATES = 3


def turned(images: np.ndarray) -> list[np.ndarray]:
    """The eight forms of a stack (n, h, w, 3) under quarter turns and mirroring."""
    quarter = [np.rot90(images, turns, axes=(1, 2)) for turns in range(4)]
    return [form for image in quarter for form in (image, image[:, :, ::-1])]


@dataclass(frozen=True)
class CopyIndex:
    """The train split, ready to be searched.

    features : (n, d) of unit length; tile_ids : (n,); grey : (n, 32, 32) float32
    """

    tile_ids: np.ndarray
    features: np.ndarray
    grey: np.ndarray


def build_index(tile_ids: np.ndarray, features: np.ndarray, images: np.ndarray) -> CopyIndex:
    return CopyIndex(tile_ids, _unit(features), _grey(images))


def copy_scores(images: np.ndarray, extractor: Extractor, index: CopyIndex) -> tuple[np.ndarray, np.ndarray]:
    """Score tiles against the index.

    Returns
    -------
    score : (n,) the highest correlation with a candidate, in [-1, 1]; 1 is a copy
    nearest : (n,) position in the index of the tile that it was found with
    """
    score = np.full(len(images), -1.0)
    nearest = np.zeros(len(images), int)
    if len(images) == 0 or len(index.tile_ids) == 0:
        return score, nearest
    for form in turned(images):
        likeness = _unit(extractor.features(form)) @ index.features.T
        candidates = np.argsort(-likeness, axis=1)[:, :_CANDIDATES]
        grey = _grey(form)
        for row, places in enumerate(candidates):
            for place in places:
                found = correlation(grey[row], index.grey[place])
                if found > score[row]:
                    score[row], nearest[row] = found, place
    return score, nearest


def correlation(tile: np.ndarray, candidate: np.ndarray) -> float:
    """Highest normalised cross-correlation of the tile's middle with any place of the candidate."""
    edge = int(len(tile) * _MARGIN / 2)
    middle = tile[edge : len(tile) - edge, edge : len(tile) - edge]
    if middle.std() < 1e-3 or candidate.std() < 1e-3:
        return 0.0
    return float(np.clip(match_template(candidate, middle).max(), -1, 1))


def _grey(images: np.ndarray) -> np.ndarray:
    grey = images.astype(np.float32).mean(-1) / 255
    if grey.shape[1] == _COMPARE_PX:
        return grey
    return np.stack([resize(g, (_COMPARE_PX, _COMPARE_PX), anti_aliasing=True) for g in grey]).astype(np.float32)


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-9)
