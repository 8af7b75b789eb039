"""How well a denoiser tells a little noise from what a tile shows: its loss at one level of noise, without a sample drawn.

It is a term of the bound on the tile's likelihood (Ho et al. 2020, eq. 12), used so by Graham et al. (2023). Its score of the tile as it
is, without any noise, tells too how likely the tile is (Sano et al., see systems/sano).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from histoloom.data.seeds import item_seed
from histoloom.errors import HistoloomError
from histoloom.process.noise import latent_noise
from histoloom.process.process import Scales
from histoloom.sampling.diffusion_model import DiffusionModel, load_unconditioned

_LEVEL = 0.05
"""How far tiles are noised on the way to noise."""
_NOISES = 4
_BATCH = 16


def denoising_errors(models: Path, sha256: str, device: str, images: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(n,) logarithm of the mean squared error of the noise that is predicted under no condition.

    Each tile has noises of its own, by a hash of its id. Batches have one size, so that a tile's error is its own.

    models : the folder of the denoiser; sha256 : of the models in it.
    images, ids : (n, h, w, 3) uint8, and the tiles' ids.

    Raises
    ------
    HistoloomError
        when what the denoiser makes is no picture.
    """
    model = _model(models, sha256, device)
    _check_pictures(model)
    found = []
    for start in range(0, len(ids), _BATCH):
        places = np.arange(start, min(start + _BATCH, len(ids)))
        padded = np.resize(places, _BATCH)
        found.append(_errors(model, images[padded], ids[padded])[: len(places)])
    return np.log(np.concatenate(found)) if found else np.empty(0)


@torch.inference_mode()
def score_maps(models: Path, sha256: str, device: str, images: np.ndarray) -> np.ndarray:
    """(n, h / factor, w / factor) float32: at each place of the data the squared norm of the score that is predicted of a tile without noise.

    The score is that at a small level of noise, times its deviation: minus the noise that the denoiser sees where there is none.

    images : (n, h, w, 3) uint8.

    Raises
    ------
    HistoloomError
        when what the denoiser makes is no picture.
    """
    model, found = _model(models, sha256, device), []
    _check_pictures(model)
    for start in range(0, len(images), _BATCH):
        tiles = images[start : start + _BATCH]
        x0, scales, data = _predicted(model, model.target.encode({"image": tiles}).to(device))
        noise = (scales.alpha * (x0 - data)) / scales.sigma
        found.append(noise.square().sum(1).float().cpu().numpy())
    return np.concatenate(found) if found else np.empty((0, 0, 0), np.float32)


def _predicted(model: DiffusionModel, x: torch.Tensor) -> tuple[torch.Tensor, Scales[float], torch.Tensor]:
    """The data x taken as data that was noised a little: x itself, the scales of that level, and the data that is predicted."""
    time = round(_LEVEL * model.process.train_timesteps)
    scales, times = model.process.scales(time), torch.full((len(x),), time, device=model.device)
    nulls = model.nulls(x.shape[2], x.shape[3]).to(model.device)
    given = nulls.each(lambda value: value.expand(len(x), *value.shape[1:]))
    noisy = scales.alpha * x
    return x, scales, model.process.x0(noisy, model.network(noisy, times, given), scales)


def _check_pictures(model: DiffusionModel) -> None:
    if model.target.reads != ("image",):
        raise HistoloomError("filter.use names anomaly, and the denoiser is none of pictures alone. Take it out.")


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
