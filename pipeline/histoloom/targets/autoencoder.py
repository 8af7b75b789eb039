"""The autoencoder: diffusers' AutoencoderKL or AutoencoderTiny, and latents of unit variance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

from histoloom.backbones.precision import set_precision
from histoloom.config import TrainAutoencoder
from histoloom.config.package import LATENT_SCALE
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from diffusers.models import AutoencoderKL, AutoencoderTiny

    Autoencoder: TypeAlias = AutoencoderKL | AutoencoderTiny


def build_autoencoder(config: TrainAutoencoder) -> Autoencoder:
    """A new autoencoder with `latent_channels` and `down_factor` as params state."""
    from diffusers.models import AutoencoderKL, AutoencoderTiny

    levels = config.down_factor.bit_length()
    if config.arch == "tiny":
        widths = (config.channels,) * levels
        blocks = (1,) + (config.blocks,) * (levels - 1)
        return AutoencoderTiny(
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            num_encoder_blocks=blocks,
            num_decoder_blocks=blocks[::-1],
            latent_channels=config.latent_channels,
        )
    widths = tuple(config.channels * min(2**level, 4) for level in range(levels))
    return AutoencoderKL(
        block_out_channels=widths,
        latent_channels=config.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=config.blocks,
        norm_num_groups=config.norm_groups,
    )


def load_autoencoder(source: str | Path, revision: str | None = None) -> Autoencoder:
    """Load an autoencoder from a folder or a hub id, safetensors only.

    Raises
    ------
    HistoloomError
        when there is none, or it is of another class.
    """
    from diffusers.models import AutoencoderKL, AutoencoderTiny

    classes = {c.__name__: c for c in (AutoencoderKL, AutoencoderTiny)}
    try:
        name = AutoencoderKL.load_config(source, revision=revision)["_class_name"]
        if name not in classes:
            raise HistoloomError(f"'{source}' is a {name}; AutoencoderKL and AutoencoderTiny are supported.")
        return classes[name].from_pretrained(source, revision=revision, use_safetensors=True, torch_dtype=torch.float32)
    except (OSError, KeyError, ValueError) as error:
        raise HistoloomError(f"No autoencoder could be loaded from '{source}': {error}") from error


def factor_of(model: Autoencoder) -> int:
    """Pixels to a latent pixel, along a side."""
    widths = model.config.get("block_out_channels") or model.config["encoder_block_out_channels"]
    return 2 ** (len(widths) - 1)


def posterior(model: Autoencoder, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Raw latents (mean) and the KL divergence per image, or None for an autoencoder without one."""
    encoded = model.encode(images)
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist.mean, encoded.latent_dist.kl()
    return encoded.latents, None


def to_model(images: np.ndarray, device: str = "cpu") -> torch.Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) float in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_images(values: torch.Tensor) -> np.ndarray:
    """(n, 3, h, w) in [-1, 1] to (n, h, w, 3) uint8."""
    out = ((values.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return out.permute(0, 2, 3, 1).cpu().numpy()


@dataclass
class LatentCodec:
    """Images to latents of zero mean and unit variance per channel, and back.

    mean, std : (1, c, 1, 1), as measured on the train split.
    """

    model: Autoencoder
    mean: torch.Tensor
    std: torch.Tensor
    device: str

    @property
    def channels(self) -> int:
        return self.mean.shape[1]

    @torch.inference_mode()
    def encode(self, images: np.ndarray) -> torch.Tensor:
        """(n, h, w, 3) uint8 to (n, c, h / f, w / f) float32 on the CPU."""
        latents, _ = posterior(self.model, to_model(images, self.device))
        return ((latents.cpu() - self.mean) / self.std).float()

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """(n, c, h, w) to (n, h * f, w * f, 3) uint8."""
        raw = latents.float().cpu() * self.std + self.mean
        return to_images(self.model.decode(raw.to(self.device)).sample)


def save_latent_scale(folder: Path, mean: torch.Tensor, std: torch.Tensor) -> None:
    write_json(folder / LATENT_SCALE, {"mean": mean.flatten().tolist(), "std": std.flatten().tolist()})


def read_latent_scale(folder: Path | str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each latent channel, as kept beside an autoencoder."""
    path = Path(folder) / LATENT_SCALE
    if not path.is_file():
        raise HistoloomError(f"'{folder}' has no {LATENT_SCALE}: set train_autoencoder.scale to measured.")
    scale = json.loads(path.read_text(encoding="utf-8"))
    return torch.tensor(scale["mean"]), torch.tensor(scale["std"])


def load_codec(folder: Path | str, device: str, precision: str = "fp32") -> LatentCodec:
    """Load what `train_autoencoder` wrote, to compute in fp32, bf16 or fp16."""
    model = load_autoencoder(folder)
    model.to(device).eval().requires_grad_(False)  # type: ignore[arg-type]  # diffusers' wrapper of `to` loses its self
    for part in (model.encoder, model.decoder):
        set_precision(part, precision, device)
    mean, std = (values.view(1, -1, 1, 1) for values in read_latent_scale(folder))
    return LatentCodec(model, mean, std, device)
