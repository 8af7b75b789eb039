"""Does the study's own denoiser know a tile: how well it tells a little noise from what the tile shows.

The error of the noise that it predicts is a term of the bound on the tile's likelihood (Ho et al. 2020, eq. 12), without a sample drawn
(Graham et al. 2023). It is standardised, and both ends count: what a generator makes too smooth has less error than real tiles have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from histoloom.data.commit import write_json
from histoloom.data.seeds import item_seed
from histoloom.errors import HistoloomError
from histoloom.process.noise import latent_noise
from histoloom.quality.filters.base import Filter, Fitting, Tiles
from histoloom.sampling.diffusion_model import DiffusionModel, generator_sha256, load_unconditioned

_FACTS = "anomaly.json"
_LEVEL = 0.05
"""How far tiles are noised on the way to noise."""
_NOISES = 4
_BATCH = 16
_LEAST = 50
"""A class with fewer train tiles is standardised by all of them."""
_ANY = ""


@dataclass(frozen=True)
class AnomalyFilter(Filter):
    """Standard deviations between a tile's error, as a logarithm, and the mean of the train tiles of its class.

    models : the folder of the denoiser; sha256 : of the models in it.
    usual : label to mean and standard deviation of the train tiles' errors; '' stands for all.
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
        errors = found.log_errors(fitting.train)
        labels = fitting.train.rows["label"].fillna(_ANY).to_numpy(object)
        parts = {_ANY: errors} | {str(label): errors[labels == label] for label in sorted({*labels} - {_ANY})}
        kept = {label: part for label, part in parts.items() if label == _ANY or len(part) >= _LEAST}
        usual = {label: [float(part.mean()), float(part.std() + 1e-6)] for label, part in kept.items()}
        return cls(models, found.sha256, fitting.device, usual)

    def scores(self, tiles: Tiles) -> pd.DataFrame:
        labels = tiles.rows["label"].fillna(_ANY)
        usual = [self.usual.get(label, self.usual[_ANY]) for label in labels]
        mean, std = np.array(usual, float).reshape(-1, 2).T
        return pd.DataFrame({self.column: np.abs(self.log_errors(tiles) - mean) / std})

    def log_errors(self, tiles: Tiles) -> np.ndarray:
        """(n,) logarithm of the mean squared error of the noise that is predicted under no condition.

        Each tile has noises of its own, by a hash of its id. Batches have one size, so that a tile's error is its own.

        Raises
        ------
        HistoloomError
            when what the denoiser makes is no picture.
        """
        model = _model(self.models, self.sha256, self.device)
        if model.target.reads != ("image",):
            raise HistoloomError("filter.use names anomaly, and the denoiser is none of pictures alone. Take it out.")
        ids, found = tiles.rows["tile_id"].to_numpy(str), []
        for start in range(0, len(tiles), _BATCH):
            places = np.arange(start, min(start + _BATCH, len(tiles)))
            padded = np.resize(places, _BATCH)
            found.append(_errors(model, tiles.images[padded], ids[padded])[: len(places)])
        return np.log(np.concatenate(found)) if found else np.empty(0)

    def save(self, folder: Path) -> None:
        write_json(folder / _FACTS, vars(self))

    @classmethod
    def load(cls, folder: Path) -> AnomalyFilter:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        return cls(**facts | {"models": Path(facts["models"])})


@lru_cache(maxsize=2)
def _model(models: Path, sha256: str, device: str) -> DiffusionModel:
    return load_unconditioned(models, device)


@torch.inference_mode()
def _errors(model: DiffusionModel, images: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(b, h, w, 3) uint8 to (b,)"""
    process, time = model.process, round(_LEVEL * model.process.train_timesteps)
    x0, scales = model.target.encode({"image": images}).to(model.device), process.scales(time)
    times = torch.full((len(x0),), time, device=model.device)
    nulls = model.nulls(x0.shape[2], x0.shape[3]).to(model.device)
    given = nulls.each(lambda value: value.expand(len(x0), *value.shape[1:]))
    total = torch.zeros(len(x0), device=model.device)
    for number in range(_NOISES):
        drawn = latent_noise([item_seed(number, f"anomaly/{tile}") for tile in ids], tuple(x0.shape[1:]))
        x = process.noised(x0, torch.from_numpy(drawn).to(model.device), scales)
        data = process.x0(x, model.network(x, times, given), scales)
        total += ((data - x0) * scales.alpha / scales.sigma).square().flatten(1).mean(1)
    return (total / _NOISES).double().cpu().numpy()
