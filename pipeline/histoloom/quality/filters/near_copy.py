"""Is a tile a copy of a train tile."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from histoloom.errors import HistoloomError
from histoloom.quality.copy_search import CopyIndex, build_index, copy_scores, grey_of, register, source_likeness
from histoloom.quality.filters.base import Filter, Fitting, Tiles
from histoloom.quality.planted_copies import IN_PLACE, disguised

_ARRAYS, _IDS, _PATCHES, _LIKENESS = "copies.safetensors", "copies.json", "patches.faiss", "likeness_of_copies"
_LEAST_FITTED = 30
_MOST_COPIES, _FEWEST_COPIES = 200, 0.05
SOURCE_LIKENESS, COPY_OF_SOURCE = "source_likeness", "copy of the tile that it was begun from"
_MOST = 0.95
"""A threshold above it would let copies pass: what it was set on is no other tissue."""


@dataclass(frozen=True)
class CopyFilter(Filter):
    """The correlation with the train tile that it fits best (copy_search.py), and which one that is.

    A tile that was begun from a real one resembles it on purpose. It is compared with the other train tiles, and with its source apart.
    What is as like its source as disguised copies are adds nothing.

    likeness_of_copies : correlation with its source that 95 % of train tiles keep under another stain, JPEG and blur; NaN rejects none.
    """

    index: CopyIndex
    likeness_of_copies: float = float("nan")
    name = "near_copy"
    reason = "near-copy of a train tile"
    high_is_bad = True

    @classmethod
    def fit(cls, fitting: Fitting) -> CopyFilter:
        index = build_index(fitting.everything["tile_id"].to_numpy(str), fitting.batches())
        return cls(index, _likeness_of_copies(fitting.train.images, fitting.params.seed))

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        sources = self._sources(tiles)
        score, nearest = copy_scores(tiles.images, self.index, sources)
        ids = self.index.tile_ids[nearest] if len(tiles) and len(self.index.tile_ids) else np.full(len(tiles), "")
        found = {self.column: np.where(score > 0, score, np.nan), "nearest_train_tile": ids}
        likeness = (
            np.full(len(tiles), np.nan) if sources is None else source_likeness(tiles.images, self.index, sources)
        )
        return pd.DataFrame(found | {SOURCE_LIKENESS: likeness})

    def _sources(self, tiles: Tiles) -> np.ndarray | None:
        """Positions in the index of the tiles that these were begun from, -1 for none; None where none was."""
        refs = tiles.rows.get("input_ref")
        if refs is None or refs.isna().all() or not len(self.index.tile_ids):
            return None
        return pd.Index(self.index.tile_ids).get_indexer(refs.fillna("").to_numpy(str))

    def reasons(self, scores: pd.DataFrame, threshold: float | None) -> dict[str, np.ndarray]:
        of_source = scores[SOURCE_LIKENESS].to_numpy(float) > self.likeness_of_copies
        return super().reasons(scores, threshold) | {COPY_OF_SOURCE: of_source}

    def threshold(self, scores: np.ndarray, fraction: float) -> float | None:
        """As for every filter, but for a fraction smaller than one of the held-out tiles.

        That is read off the Gumbel distribution with their median and upper tenth: a score is the highest of many
        correlations, and such maxima have its tail. It is no higher than halfway from the highest score to 1.

        Raises
        ------
        HistoloomError
            when held-out tiles are as near to train tiles as copies are.
        """
        known = scores[np.isfinite(scores)]
        found = super().threshold(known, fraction)
        if found is not None and found > _MOST:
            raise HistoloomError(
                f"The near-copy filter can't be calibrated: real held-out tiles correlate with train tiles up to {found:.2f}. Either "
                "no tile is held out (tile.split), or two splits hold the same tissue (histoloom validate --deep)."
            )
        if 0 < fraction * len(known) < 1 and len(known) >= _LEAST_FITTED:
            middle, upper = np.quantile(known, [0.5, 0.9])
            tail = middle + (upper - middle) * (_gumbel(1 - fraction) - _gumbel(0.5)) / (_gumbel(0.9) - _gumbel(0.5))
            found = float(min(tail, (known.max() + 1) / 2))
        return found

    def save(self, folder: Path) -> None:
        import faiss

        arrays = {"grey": self.index.grey, "axes": self.index.axes, _LIKENESS: np.array([self.likeness_of_copies])}
        save_file(arrays, folder / _ARRAYS)
        (folder / _IDS).write_text(json.dumps(self.index.tile_ids.tolist()) + "\n", encoding="utf-8")
        faiss.write_index(self.index.patches, str(folder / _PATCHES))

    @classmethod
    def load(cls, folder: Path) -> CopyFilter:
        import faiss

        ids = json.loads((folder / _IDS).read_text(encoding="utf-8"))
        patches = faiss.read_index(str(folder / _PATCHES), faiss.IO_FLAG_MMAP_IFC)  # all workers share its pages
        arrays = load_file(folder / _ARRAYS)
        likeness = float(arrays.pop(_LIKENESS)[0])
        return cls(CopyIndex(np.array(ids, str), **arrays, patches=patches), likeness)


def _likeness_of_copies(images: np.ndarray, seed: int) -> float:
    some = images[np.unique(np.linspace(0, len(images) - 1, _MOST_COPIES).astype(int))] if len(images) else images
    if not len(some):
        return float("nan")
    rng = np.random.default_rng(seed)
    copies = grey_of(np.stack([disguised(image, rng, IN_PLACE) for image in some]))
    return float(np.quantile([register(*pair) for pair in zip(copies, grey_of(some))], _FEWEST_COPIES))


def _gumbel(fraction: float) -> float:
    """The standard Gumbel distribution's quantile."""
    return -np.log(-np.log(fraction))
