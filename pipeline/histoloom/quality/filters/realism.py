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
class RealismFilter(Filter):
    """Rejection sampling by the density ratio of real to synthetic tiles (Azadi et al. 2019).

    A tile passes with the chance min(1, ratio), so that what passes is no more frequent among synthetic tiles than among real ones.
    The share that passes is the overlap of the two. The chance is drawn by a hash of the tile's id. The score is the log-ratio less
    the logarithm of that draw, so it passes from 0.

    Real tiles are those of train and val, as the generator's target gives them back. Against val alone, the classifiers would tell
    patients or regions, of which they see few. Against tiles as they were scanned, they would tell what an autoencoder loses, which no
    choice among its tiles mends. That a tile is a copy of a train tile is for `near_copy` to say.

    classes : label to what tells its tiles apart; '' stands for no label. Tiles of other labels have no score.
    """

    classes: dict[str, TwoSample]
    seed: int
    name = "realism"
    reason = "told apart from real tiles"
    of_generator = True
    sees_features = True
    calibrated = False

    @classmethod
    def fit(cls, fitting: Fitting) -> RealismFilter:
        """Fit to synthetic tiles and to real ones, of each label that has at least 50 of both."""
        assert fitting.held_out is not None and fitting.synthetic is not None, (
            "the stage `filter` has tiles of all kinds"
        )
        real = _sample(fitting.train), _sample(fitting.held_out)
        labels = np.concatenate([_labels(fitting.train), _labels(fitting.held_out)])
        every = Sample(*map(np.concatenate, zip(*real)))
        made, made_labels = _sample(fitting.synthetic), _labels(fitting.synthetic)
        classes = {}
        for label in sorted({*labels} & {*made_labels}):
            pair = _of(every, labels == label), _of(made, made_labels == label)
            if min(len(part.ids) for part in pair) >= LEAST:
                classes[label] = fit_two_sample(*pair)
        return cls(classes, fitting.params.seed)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        ratios, labels = np.full(len(tiles), np.nan), _labels(tiles)
        for label, apart in self.classes.items():
            chosen = labels == label
            ratios[chosen] = apart.log_ratios(_of(_sample(tiles), chosen))
        draws = [(item_seed(self.seed, f"{self.name}/{tile}") + 1) / 2**64 for tile in tiles.rows["tile_id"]]
        return pd.DataFrame({self.column: ratios - np.log(np.array(draws, float)), "log_density_ratio": ratios})

    def threshold(self, scores: np.ndarray, fraction: float) -> float:
        return 0.0

    def save(self, folder: Path) -> None:
        facts = {
            label: {"number": number, "folds": apart.folds}
            for number, (label, apart) in enumerate(self.classes.items())
        }
        arrays: dict[str, np.ndarray] = {}
        for number, apart in enumerate(self.classes.values()):
            arrays |= {f"weights-{number}": apart.weights, f"bias-{number}": apart.bias}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / _ARRAYS)
        write_json(folder / _FACTS, {"seed": self.seed, "classes": facts})

    @classmethod
    def load(cls, folder: Path) -> RealismFilter:
        facts, arrays = json.loads((folder / _FACTS).read_text(encoding="utf-8")), load_file(folder / _ARRAYS)
        classes = {}
        for label, of in facts["classes"].items():
            weights, bias = (arrays[f"{name}-{of['number']}"] for name in ("weights", "bias"))
            classes[label] = TwoSample(weights, bias, of["folds"])
        return cls(classes, facts["seed"])


def _labels(tiles: Tiles) -> np.ndarray:
    return tiles.rows["label"].fillna("").to_numpy(object)


def _sample(tiles: Tiles) -> Sample:
    return Sample(tiles.features, *(tiles.rows[name].to_numpy(object) for name in ("tile_id", "split_group")))


def _of(sample: Sample, chosen: np.ndarray) -> Sample:
    return Sample(*(values[chosen] for values in sample))
