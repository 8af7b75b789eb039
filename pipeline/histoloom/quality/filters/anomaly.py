"""Does the study's own denoiser know a tile: how well it tells a little noise from what the tile shows.

Its error is standardised, and both ends count: what a generator makes too smooth has less error than real tiles have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.data.commit import write_json
from histoloom.data.rows import spread_by
from histoloom.errors import HistoloomError
from histoloom.quality.denoising_error import denoising_errors
from histoloom.quality.filters.base import Filter, Fitting, Tiles
from histoloom.sampling.diffusion_model import generator_sha256

_FACTS = "anomaly.json"
_LEAST, _MOST = 50, 1000
"""A class with fewer train tiles is standardised by all of them; of one with more, so many are measured."""
_ANY = ""


@dataclass(frozen=True)
class AnomalyFilter(Filter):
    """Standard deviations between a tile's error, as a logarithm, and the mean of the train tiles of its class.

    models : the folder of the denoiser; sha256 : of the models in it.
    usual : label to mean and standard deviation of train tiles' errors, at most 1,000 of a label; '' stands for all.
    """

    models: Path
    sha256: str
    device: str
    usual: dict[str, list[float]]
    name = "anomaly"
    reason = "unlike what the denoiser knows"
    of_generator = True
    high_is_bad = True

    @classmethod
    def fit(cls, fitting: Fitting) -> AnomalyFilter:
        models = fitting.study.models.resolve()
        if not (models / "denoiser").is_dir():
            raise HistoloomError("filter.use names anomaly, and there is no denoiser. Run: dvc repro train_denoiser")
        found = cls(models, generator_sha256(models), fitting.device, {})
        rows = fitting.train.rows
        measured = rows.index.isin(spread_by(rows, rows["label"], _MOST).index)
        train = fitting.train.part(measured)
        errors, labels = found._log_errors(train), train.rows["label"].fillna(_ANY).to_numpy(object)
        parts = {_ANY: errors} | {str(label): errors[labels == label] for label in sorted({*labels} - {_ANY})}
        kept = {label: part for label, part in parts.items() if label == _ANY or len(part) >= _LEAST}
        usual = {label: [float(part.mean()), float(part.std() + 1e-6)] for label, part in kept.items()}
        return cls(models, found.sha256, fitting.device, usual)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        labels = tiles.rows["label"].fillna(_ANY)
        usual = [self.usual.get(label, self.usual[_ANY]) for label in labels]
        mean, std = np.array(usual, float).reshape(-1, 2).T
        return pd.DataFrame({self.column: np.abs(self._log_errors(tiles) - mean) / std})

    def _log_errors(self, tiles: Tiles) -> np.ndarray:
        ids = tiles.rows["tile_id"].to_numpy(str)
        return denoising_errors(self.models, self.sha256, self.device, tiles.images, ids)

    def save(self, folder: Path) -> None:
        write_json(folder / _FACTS, vars(self))

    @classmethod
    def load(cls, folder: Path) -> AnomalyFilter:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        return cls(**facts | {"models": Path(facts["models"])})
