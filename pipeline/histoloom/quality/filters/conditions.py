"""Does a tile show the conditions that it was given: its mask, its expression, its caption."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import RidgeCV

from histoloom.conditions.rna import CODES
from histoloom.data.commit import write_json
from histoloom.data.store import UNKNOWN
from histoloom.errors import HistoloomError
from histoloom.learners.certainty import fit_certainty
from histoloom.learners.dice import dice
from histoloom.learners.kept import Kept, facts_of_study, keep, load_kept
from histoloom.learners.learner import Training, learner_of
from histoloom.quality.filters.base import Filter, Fitting, Tiles
from histoloom.training.clip import likeness
from histoloom.training.run import TrainingRun

_RIDGES = tuple(10.0**k for k in range(1, 7))
_TEXT, _RNA = "text", "rna"
_READ = "text.json"
_CERTAINTY_TILES = 256
"""Of these tiles the pixels tell how often a learner is right."""
_TRAINED_AT_ONCE = 16
_MOST_CAPTIONS = 256
_AGREED = 0.05
"""As if a fortieth of the tile agreed in addition (learners.dice). Else a sliver of a nucleus that is missed at a tile's border counts as
much as all its nuclei, and where real tiles have such slivers no threshold above 0 can be set."""


@dataclass(frozen=True)
class MaskFilter(Filter):
    """Dice coefficient of the tile's stated mask with what a learner of real tiles finds, as if a fortieth of the tile agreed in addition."""

    kept: Kept
    name = "mask"
    reason = "does not show its mask"
    cross_fitted = True

    @classmethod
    def fit(cls, fitting: Fitting) -> MaskFilter:
        params, config = fitting.params, fitting.params.train_filters
        classes, told = params.tile.masks.classes, config.segmenter_config
        if not classes or "mask" not in params.conditions:
            raise HistoloomError(
                "filter.use names mask, which is none of train_denoiser.conditions, or tile.masks has no classes. Take it out."
            )
        known, name = cls.applies_to(fitting.train), "mask" if fitting.fold is None else f"mask-{fitting.fold + 1}"
        if not known.any():
            raise HistoloomError("filter.use names mask, and no train tile's mask is known. Take it out.")
        masks = fitting.train.read("mask")
        assert masks is not None, "a row says `masked` where its store has masks"
        kind = learner_of(told.name, "mask")
        run = TrainingRun(
            f"train_filters: {name}", config.segmenter_steps, kind.rate(told), params.seed, fitting.work / "checkpoints" / name, 100,
            warmup_steps=20, device=fitting.device,
        )  # fmt: skip
        training = Training(told.name, "mask", classes, run, _TRAINED_AT_ONCE, told=told, models=fitting.study.models)
        learner = kind.fit(fitting.train.images[known], masks[known], training)
        return cls(Kept(learner, facts_of_study(told.name, params)))

    def checked_on(self, held_out: Tiles) -> Self:
        """The filter whose learner knows how often it is right."""
        certainty = fit_certainty(*self.sure_and_right(held_out))
        return replace(self, kept=replace(self.kept, facts=replace(self.kept.facts, certainty=certainty)))

    def sure_and_right(self, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
        """Of the known pixels of some of the tiles (n,): how sure the learner is, from 0 to 1, and whether it is right."""
        stated, places = tiles.read("mask"), np.flatnonzero(self.applies_to(tiles))
        if stated is None or not len(places) or not self.kept.learner.tells_certainty:
            return np.empty(0), np.empty(0, bool)
        some = places[np.unique(np.linspace(0, len(places) - 1, _CERTAINTY_TILES).astype(int))]
        ids, sure = self.kept.learner.sure_masks(tiles.images[some])
        told = stated[some] != UNKNOWN
        return sure[told], ids[told] == stated[some][told]

    @staticmethod
    def applies_to(tiles: Tiles) -> np.ndarray:
        return tiles.rows["masked"].to_numpy(bool)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        stated = tiles.read("mask")
        if stated is None:
            return pd.DataFrame({self.column: np.full(len(tiles), np.nan)})
        scores = dice(self.kept.learner.predict(tiles.images), stated, len(self.kept.facts.classes), _AGREED)
        return pd.DataFrame({self.column: np.where(self.applies_to(tiles), scores, np.nan)})

    def save(self, folder: Path) -> None:
        keep(self.kept, folder)

    @classmethod
    def load(cls, folder: Path) -> MaskFilter:
        return cls(load_kept(folder))


@dataclass(frozen=True)
class RnaFilter(Filter):
    """Cosine of the code of the tile's expression profile with the code that ridge regression reads from its features,
    both about the train split's mean.

    codes : a row a sample; mean, scale : of features; weights (d, k); centre (k,)
    """

    codes: pd.DataFrame
    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    centre: np.ndarray
    name = _RNA
    reason = "does not show its expression"
    sees_features = True

    @classmethod
    def fit(cls, fitting: Fitting) -> RnaFilter:
        path = fitting.encoders / _RNA / CODES
        if not path.is_file():
            raise HistoloomError("filter.use names rna, which is none of train_denoiser.conditions. Take it out.")
        codes, rows, features = pd.read_parquet(path), fitting.train.rows, fitting.train.features
        given = codes.reindex(rows["rna"].to_numpy(object)).to_numpy(np.float32)
        known = np.isfinite(given).all(1)
        if not known.any():
            raise HistoloomError("filter.use names rna, and no train tile has an expression profile. Take it out.")
        mean, scale, centre = features[known].mean(0), features[known].std(0) + 1e-6, given[known].mean(0)
        ridge = RidgeCV(_RIDGES, fit_intercept=False).fit((features[known] - mean) / scale, given[known] - centre)
        return cls(codes, mean, scale, np.ascontiguousarray(ridge.coef_.T, np.float32), centre)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        read = ((tiles.features - self.mean) / self.scale) @ self.weights
        given = self.codes.reindex(tiles.rows["rna"].to_numpy(object)).to_numpy(np.float32) - self.centre
        lengths = np.linalg.norm(read, axis=1) * np.linalg.norm(given, axis=1)
        return pd.DataFrame({self.column: (read * given).sum(1) / np.maximum(lengths, 1e-9)})

    def save(self, folder: Path) -> None:
        self.codes.to_parquet(folder / CODES)
        arrays = {name: getattr(self, name) for name in ("mean", "scale", "weights", "centre")}
        save_file({n: np.ascontiguousarray(a, np.float32) for n, a in arrays.items()}, folder / "rna.safetensors")

    @classmethod
    def load(cls, folder: Path) -> RnaFilter:
        return cls(pd.read_parquet(folder / CODES), **load_file(folder / "rna.safetensors"))


@dataclass(frozen=True)
class TextFilter(Filter):
    """Cosine of tile and caption in the study's CLIP, less its mean over the train split's most frequent captions, since some
    tiles are near to all of them.

    folder : of open_clip, with both towers
    max_tokens : as params state it
    """

    folder: Path
    captions: tuple[str, ...]
    max_tokens: int | None = None
    name = _TEXT
    reason = "does not show its caption"

    @classmethod
    def fit(cls, fitting: Fitting) -> TextFilter:
        folder = fitting.encoders / _TEXT
        if not (folder / "open_clip_config.json").is_file():
            raise HistoloomError(
                "filter.use names text, and there is no CLIP with both towers: train_encoders.text.source must be train "
                "or a packaged model, and text one of train_denoiser.conditions. Take it out."
            )
        captions = fitting.train.rows["caption"].fillna("")
        most = tuple(captions[captions != ""].value_counts().index[:_MOST_CAPTIONS])
        return cls(folder, most, fitting.params.last.train_encoders.text.max_tokens)

    @cached_property
    def compare(self) -> Callable[[np.ndarray, list[str]], np.ndarray]:
        return likeness(self.folder, self.max_tokens)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        own = tiles.rows["caption"].to_numpy(object)
        captions = sorted(set(self.captions) | {c for c in own if c})
        cosines = self.compare(tiles.images, captions)
        usual = cosines[:, [captions.index(c) for c in self.captions]].mean(1)
        found = [row[captions.index(c)] - u if c else np.nan for row, u, c in zip(cosines, usual, own)]
        return pd.DataFrame({self.column: np.array(found, float)})

    def save(self, folder: Path) -> None:
        shutil.copytree(self.folder, folder / _TEXT)
        pd.DataFrame({"caption": self.captions}).to_parquet(folder / "captions.parquet")
        write_json(folder / _READ, {"max_tokens": self.max_tokens})

    @classmethod
    def load(cls, folder: Path) -> TextFilter:
        read = json.loads((folder / _READ).read_text(encoding="utf-8"))
        return cls(folder / _TEXT, tuple(pd.read_parquet(folder / "captions.parquet")["caption"]), **read)
