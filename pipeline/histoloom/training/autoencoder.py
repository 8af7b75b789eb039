"""Training the autoencoder, measuring it, and measuring the scale of its latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from histoloom.config import TrainAutoencoder
from histoloom.config.package import packaged
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.targets.autoencoder import (
    LatentCodec,
    build_autoencoder,
    factor_of,
    load_autoencoder,
    load_codec,
    posterior,
    read_latent_scale,
    save_latent_scale,
    to_model,
)
from histoloom.training.critic import PatchCritic
from histoloom.training.loop import LossFunction, TrainingRun, epoch_order, train
from histoloom.training.perceptual import PerceptualDistance

_BATCH = 64
_SCALE_TILES = 4096
"""Of so many tiles at most, evenly spread, the scale of the latents is measured."""
_DETAIL_PX = 8
_DECODING = ("decoder", "post_quant_conv")


def train_autoencoder(
    config: TrainAutoencoder,
    store: TileStore,
    rows: pd.DataFrame,
    seed: int,
    run: TrainingRun,
    decoder_run: TrainingRun,
    folder: Path,
    log=None,
) -> LatentCodec:
    """Train, fine-tune or only load an autoencoder, and save it with the measured scale of its latents.

    The loss is the absolute error, plus `detail_weight` times the error of local detail, `perceptual_weight` times the
    distance in a network's features, and `kl_weight` times the KL divergence, where there is one. In `decoder_run` the decoder
    learns alone, and `critic_weight` times what a critic says of its pictures takes the place of the last two.
    """
    if config.init == "scratch":
        with torch.random.fork_rng():
            torch.default_generator.manual_seed(seed)
            model = build_autoencoder(config)
    else:
        source = packaged(config.init, "autoencoder")
        model = load_autoencoder(source, config.revision)
        if (factor := factor_of(model)) != config.down_factor:
            raise HistoloomError(
                f"train_autoencoder.init has a factor of {factor}: set train_autoencoder.down_factor to it."
            )
        kept = read_latent_scale(source) if config.scale == "kept" else None
    model = model.to(run.device)
    images = store.read(rows)
    if config.steps:
        train(model, _whole_loss(config, model, images, seed, run.device), run, log)
    if config.decoder_steps:
        _train_decoder(config, model, images, seed, decoder_run, log)
    model.eval().requires_grad_(False)
    if config.scale == "kept":
        mean, std = kept
    else:
        mean, std = measure_latents(model, images[:: -(-len(images) // _SCALE_TILES)], run.device)
    model.save_pretrained(folder, safe_serialization=True)
    save_latent_scale(folder, mean, std)
    return load_codec(folder, run.device)


def _whole_loss(
    config: TrainAutoencoder, model: torch.nn.Module, images: np.ndarray, seed: int, device: str
) -> LossFunction:
    perceptual = PerceptualDistance(device) if config.perceptual_weight else None

    def loss(step: int, generator: torch.Generator):
        batch = _batch(config, images, seed, step, generator, device)
        latents, kl = posterior(model, batch)
        if kl is not None:
            noise = torch.randn(latents.shape, generator=generator).to(latents)
            latents = latents + noise * model.encode(batch).latent_dist.std
        rebuilt = model.decode(latents).sample
        error = (rebuilt - batch).abs().mean()
        divergence = 0.0 if kl is None else config.kl_weight * kl.mean()
        detail = config.detail_weight * detail_loss(rebuilt, batch)
        likeness = config.perceptual_weight * perceptual(rebuilt, batch) if perceptual else 0.0
        return error + detail + likeness + divergence, {"l1": error.detach()}

    return loss


def _train_decoder(
    config: TrainAutoencoder, model: torch.nn.Module, images: np.ndarray, seed: int, run: TrainingRun, log
) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(_DECODING))
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        critic = PatchCritic().to(run.device)

    def loss(step: int, generator: torch.Generator):
        batch = _batch(config, images, seed, step, generator, run.device)
        with torch.no_grad():
            latents, _ = posterior(model, batch)
        rebuilt = model.decode(latents).sample
        error = (rebuilt - batch).abs().mean()
        own, fooling = critic.losses(rebuilt, batch)
        whole = error + config.detail_weight * detail_loss(rebuilt, batch) + own + config.critic_weight * fooling
        return whole, {"l1": error.detach(), "critic": own.detach()}

    curve = log and (lambda step, numbers: log(config.steps + step, numbers))
    train(torch.nn.ModuleDict({"autoencoder": model, "critic": critic}), loss, run, curve)


def _batch(
    config: TrainAutoencoder, images: np.ndarray, seed: int, step: int, generator: torch.Generator, device: str
) -> torch.Tensor:
    """A step's pictures (b, 3, h, w) in [-1, 1], cropped and mirrored."""
    index = epoch_order(seed, len(images), config.batch_size, step)
    batch = to_model(_crops(images, index, config.crop_px, generator), device)
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
    strengths = [
        [torch.nn.functional.avg_pool2d(batch.diff(dim=axis).abs(), _DETAIL_PX) for axis in (2, 3)]
        for batch in (rebuilt, images)
    ]
    return sum((ours - theirs).abs().mean() for ours, theirs in zip(*strengths))


@torch.inference_mode()
def measure_latents(model: torch.nn.Module, images: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each latent channel over the images."""
    total = squares = count = 0
    for start in range(0, len(images), _BATCH):
        latents = posterior(model, to_model(images[start : start + _BATCH], device))[0].double().cpu()
        total, squares = total + latents.sum((0, 2, 3)), squares + latents.square().sum((0, 2, 3))
        count += latents[:, 0].numel()
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp_min(1e-8).sqrt().float()


def reconstruction(codec: LatentCodec, images: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    """PSNR (dB) and SSIM, averaged over the images, and the reconstructions (n, h, w, 3) uint8."""
    rebuilt = np.concatenate(
        [codec.decode(codec.encode(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)]
    )
    with np.errstate(divide="ignore"):  # a perfect tile has infinite PSNR
        psnr = [min(peak_signal_noise_ratio(a, b), 100.0) for a, b in zip(images, rebuilt)]
    ssim = [structural_similarity(a, b, channel_axis=-1) for a, b in zip(images, rebuilt)]
    return {"psnr_db": float(np.mean(psnr)), "ssim": float(np.mean(ssim)), "tiles": len(images)}, rebuilt


def reconstruction_picture(images: np.ndarray, rebuilt: np.ndarray, count: int = 12) -> Image.Image:
    """Originals above, reconstructions below."""
    pick = np.linspace(0, len(images) - 1, min(count, len(images))).astype(int)
    rows = [np.concatenate(list(part[pick]), axis=1) for part in (images, rebuilt)]
    picture = Image.fromarray(np.concatenate(rows))
    return picture.resize((picture.width * 2, picture.height * 2), Image.Resampling.NEAREST)
