"""Is there more of it among synthetic tiles than among real ones of its class: tiles are thinned out by the ratio of the two densities."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load_file, save_file

from histoloom.data.commit import write_json
from histoloom.data.seeds import item_seed
from histoloom.quality.filters.base import Filter, Fitting, Tiles
from histoloom.quality.realism import LEAST, Sample, TwoSample, fit_two_sample

_FACTS, _ARRAYS = "realism.json", "realism.safetensors"


@dataclass(frozen=True)
class OfClass:
    """What tells the tiles of one class apart.

    offset : mean log-ratio of real train tiles where that is below 0, else 0. So far the classifiers tell patients, not kinds.
    """

    apart: TwoSample
    offset: float


@dataclass(frozen=True)
class RealismFilter(Filter):
    """Rejection sampling by the density ratio of real to synthetic tiles (Azadi et al. 2019).

    A tile passes with the chance min(1, ratio), so that what passes is no more frequent among synthetic tiles than among real ones.
    The share that passes is the overlap of the two. The ratio is taken relative to that of real train tiles, where theirs is below 1: a
    generator can't be nearer to other patients than its own train tiles are. The chance is drawn by a hash of the tile's id. The
    score is the log-ratio less the offset and less the logarithm of that draw, so it passes from 0.

    classes : label to what tells its tiles apart; '' stands for no label. Tiles of other labels have no score.
    """

    classes: dict[str, OfClass]
    seed: int
    name = "realism"
    reason = "told apart from real tiles"
    of_generator = True
    sees_features = True
    calibrated = False

    @classmethod
    def fit(cls, fitting: Fitting) -> RealismFilter:
        """Fit to synthetic tiles and to real held-out ones, of each label that has at least 50 of both."""
        tiles = fitting.held_out, fitting.synthetic, fitting.train
        classes = {}
        for label in sorted({*_labels(fitting.held_out)} & {*_labels(fitting.synthetic)}):
            real, synthetic, train = (_sample(part, _labels(part) == label) for part in tiles)
            if min(len(real.ids), len(synthetic.ids)) >= LEAST:
                apart = fit_two_sample(real, synthetic)
                usual = float(apart.log_ratios(train).mean()) if len(train.ids) else 0.0
                classes[label] = OfClass(apart, min(usual, 0.0))
        return cls(classes, fitting.params.seed)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        ratios, offsets, labels = np.full(len(tiles), np.nan), np.zeros(len(tiles)), _labels(tiles)
        for label, of_class in self.classes.items():
            chosen = labels == label
            ratios[chosen] = of_class.apart.log_ratios(_sample(tiles, chosen))
            offsets[chosen] = of_class.offset
        draws = [(item_seed(self.seed, f"{self.name}/{tile}") + 1) / 2**64 for tile in tiles.rows["tile_id"]]
        return pd.DataFrame(
            {self.column: ratios - offsets - np.log(np.array(draws, float)), "log_density_ratio": ratios}
        )

    def threshold(self, scores: np.ndarray, fraction: float) -> float:
        return 0.0

    def save(self, folder: Path) -> None:
        facts = {
            label: {"number": number, "offset": of_class.offset, "folds": of_class.apart.folds}
            for number, (label, of_class) in enumerate(self.classes.items())
        }
        arrays: dict[str, np.ndarray] = {}
        for number, of_class in enumerate(self.classes.values()):
            arrays |= {f"weights-{number}": of_class.apart.weights, f"bias-{number}": of_class.apart.bias}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / _ARRAYS)
        write_json(folder / _FACTS, {"seed": self.seed, "classes": facts})

    @classmethod
    def load(cls, folder: Path) -> RealismFilter:
        facts, arrays = json.loads((folder / _FACTS).read_text(encoding="utf-8")), load_file(folder / _ARRAYS)
        classes = {}
        for label, of in facts["classes"].items():
            weights, bias = (arrays[f"{name}-{of['number']}"] for name in ("weights", "bias"))
            classes[label] = OfClass(TwoSample(weights, bias, of["folds"]), of["offset"])
        return cls(classes, facts["seed"])


def _labels(tiles: Tiles | None) -> np.ndarray:
    assert tiles is not None, "the stage `filter` has tiles of both kinds"
    return tiles.rows["label"].fillna("").to_numpy(object)


def _sample(tiles: Tiles | None, chosen: np.ndarray) -> Sample:
    assert tiles is not None
    return Sample(
        tiles.features[chosen], *(tiles.rows[name].to_numpy(object)[chosen] for name in ("tile_id", "split_group"))
    )
