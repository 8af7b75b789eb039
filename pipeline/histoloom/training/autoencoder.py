"""Training the autoencoder, and measuring the scale of its latents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from histoloom.config import TrainAutoencoder
from histoloom.config.package import packaged
from histoloom.errors import HistoloomError
from histoloom.targets.autoencoder import build_autoencoder, factor_of, load_autoencoder, posterior
from histoloom.targets.latents import Latents, read_latent_scale, save_latent_scale
from histoloom.targets.pixels import to_model
from histoloom.training.critic import PatchCritic
from histoloom.training.loop import train
from histoloom.training.perceptual import PerceptualDistance
from histoloom.training.processes import own_rows
from histoloom.training.reconstruction import rebuilt_kid
from histoloom.training.run import LossFunction, Numbers, TrainingRun, epoch_order

if TYPE_CHECKING:
    from histoloom.targets.autoencoder import Autoencoder

LatentScale = tuple[torch.Tensor, torch.Tensor]
"""Mean and standard deviation of each latent channel, (c,) each."""
_BATCH = 64
_SCALE_TILES = 4096
"""The scale of the latents is measured on this many tiles at most, evenly spread."""
_DETAIL_PX = 8
_DECODING = ("decoder", "post_quant_conv")


def train_autoencoder(
    config: TrainAutoencoder, images: np.ndarray, run: TrainingRun, folder: Path, val: np.ndarray | None = None
) -> Latents:
    """Train, fine-tune or only load an autoencoder, and save it with the measured scale of its latents.

    The loss is the absolute error, plus `detail_weight` times the error of local detail, `perceptual_weight` times the
    distance in a network's features, and `kl_weight` times the KL divergence, where there is one. Then the decoder learns
    alone, for `decoder_steps`. `critic_weight` times what a critic says of its pictures takes the place of the last one.

    Parameters
    ----------
    images : tiles (n, h, w, 3) uint8.
    run : of the whole autoencoder; the decoder's checkpoints lie beside its own.
    folder : where the autoencoder is saved.
    val : tiles that are rebuilt at each checkpoint, where `patience` asks for it.

    Raises
    ------
    HistoloomError
        when what `init` names has another factor than `down_factor`.
    """
    model, kept = _first_model(config, run.seed)
    model.to(run.device)  # type: ignore[arg-type]  # diffusers' wrapper of `to` loses its self
    if config.patience is not None and val is not None:
        run.patience, run.measure = config.patience, rebuilt_kid(lambda batch: _rebuilt(model, batch), val, run.device)
    if config.steps:
        train(model, _whole_loss(config, model, images, run), run)
    if config.decoder_steps:
        _train_decoder(config, model, images, _decoder_run(config, run))
    model.eval().requires_grad_(False)
    if kept is None:
        kept = measure_latents(model, images[:: tiles_for_one_measured(len(images))], run.device)
    model.save_pretrained(folder, safe_serialization=True)
    save_latent_scale(folder, *kept)
    return Latents.load(folder, run.device)


def tiles_for_one_measured(tiles: int) -> int:
    """Of so many tiles, one is looked at to measure the scale of the latents."""
    return -(-tiles // _SCALE_TILES)


def _first_model(config: TrainAutoencoder, seed: int) -> tuple[Autoencoder, LatentScale | None]:
    """A new autoencoder, or a trained one; and the scale of its latents where `scale` says that it is kept."""
    if config.init == "scratch":
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(seed)
            return build_autoencoder(config), None
    source = packaged(config.init, "autoencoder", config.revision)
    model = load_autoencoder(source, config.revision)
    if (factor := factor_of(model)) != config.down_factor:
        raise HistoloomError(
            f"train_autoencoder.init has a factor of {factor}: set train_autoencoder.down_factor to it."
        )
    return model, read_latent_scale(source) if config.scale == "kept" else None


def _whole_loss(config: TrainAutoencoder, model: Autoencoder, images: np.ndarray, run: TrainingRun) -> LossFunction:
    distance = _distance(config, run.device)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        batch = _batch(config, images, run, step, generator)
        mine, rows = own_rows(len(batch)), len(batch)
        batch = batch[mine]
        latents, std, kl = posterior(model, batch)
        if std is not None:
            noise = torch.randn((rows, *latents.shape[1:]), generator=generator)[mine].to(latents)
            latents = latents + noise * std
        rebuilt = model.decode(latents).sample
        divergence = 0.0 if kl is None else config.kl_weight * kl.mean()
        far, error = distance(rebuilt, batch)
        return far + divergence, {"l1": error}

    return loss


def _distance(
    config: TrainAutoencoder, device: str
) -> Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Of rebuilt pictures (b, 3, h, w) from theirs: their distance as params weigh it, and the absolute error in it."""
    perceptual = PerceptualDistance(device) if config.perceptual_weight else None

    def distance(rebuilt: torch.Tensor, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        error = (rebuilt - images).abs().mean()
        likeness = config.perceptual_weight * perceptual(rebuilt, images) if perceptual else 0.0
        return error + config.detail_weight * detail_loss(rebuilt, images) + likeness, error.detach()

    return distance


def _rebuilt(model: Autoencoder, images: torch.Tensor) -> torch.Tensor:
    return model.decode(posterior(model, images).mean).sample


def _decoder_run(config: TrainAutoencoder, run: TrainingRun) -> TrainingRun:
    """The decoder's own training; its curve goes on where the whole's ends."""
    log, steps = run.log, config.steps
    return replace(
        run, title=f"{run.title}: decoder", steps=config.decoder_steps, learning_rate=run.learning_rate / 2,
        checkpoints=run.checkpoints.with_name("decoder"), resume_from=None, history=[], measure=None, patience=None, measured=[],
        log=log and (lambda step, numbers: log(steps + step, numbers)),
    )  # fmt: skip


def _train_decoder(config: TrainAutoencoder, model: Autoencoder, images: np.ndarray, run: TrainingRun) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(_DECODING))
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(run.seed)
        critic = PatchCritic().to(run.device)
    distance = _distance(config, run.device)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        batch = _batch(config, images, run, step, generator)
        batch = batch[own_rows(len(batch))]
        with torch.no_grad():
            latents = posterior(model, batch).mean
        rebuilt = model.decode(latents).sample
        far, error = distance(rebuilt, batch)
        own, fooling = critic.losses(rebuilt, batch)
        return far + own + config.critic_weight * fooling, {"l1": error, "critic": own.detach()}

    train(torch.nn.ModuleDict({"autoencoder": model, "critic": critic}), loss, run)


def _batch(
    config: TrainAutoencoder, images: np.ndarray, run: TrainingRun, step: int, generator: torch.Generator
) -> torch.Tensor:
    """A step's pictures (b, 3, h, w) in [-1, 1], cropped and mirrored."""
    index = epoch_order(run.seed, len(images), config.batch_size, step)
    batch = to_model(_crops(images, index, config.crop_px, generator), run.device)
    for axis in (2, 3):
        if torch.rand((), generator=generator) < 0.5:
            batch = batch.flip(axis)
    return batch


def _crops(images: np.ndarray, index: torch.Tensor, crop_px: int | None, generator: torch.Generator) -> np.ndarray:
    """The images of these numbers, or a random crop of each."""
    if crop_px is None or crop_px >= images.shape[1]:
        return images[index.numpy()]
    places = torch.randint(0, images.shape[1] - crop_px + 1, (len(index), 2), generator=generator).tolist()
    return np.stack([images[i, y : y + crop_px, x : x + crop_px] for i, (y, x) in zip(index.tolist(), places)])


def detail_loss(rebuilt: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of the gradients' strength in windows of 8 px, for batches (b, 3, h, w).

    The absolute error alone is least for a blur; this asks for as much detail as there was, wherever exactly it lies.
    """
    rows, columns = (
        [torch.nn.functional.avg_pool2d(batch.diff(dim=axis).abs(), _DETAIL_PX) for batch in (rebuilt, images)]
        for axis in (2, 3)
    )
    return (rows[0] - rows[1]).abs().mean() + (columns[0] - columns[1]).abs().mean()


@torch.inference_mode()
def measure_latents(model: Autoencoder, images: np.ndarray, device: str) -> LatentScale:
    """Mean and standard deviation of each latent channel over the images."""
    sums, squares, count = [], [], 0
    for start in range(0, len(images), _BATCH):
        batch = np.array(images[start : start + _BATCH])  # of a file that is mapped, a copy
        latents = posterior(model, to_model(batch, device)).mean.double().cpu()
        sums.append(latents.sum((0, 2, 3)))
        squares.append(latents.square().sum((0, 2, 3)))
        count += latents[:, 0].numel()
    mean, square = reduce(torch.add, sums) / count, reduce(torch.add, squares) / count
    return mean.float(), (square - mean.square()).clamp_min(1e-8).sqrt().float()
