"""The autoencoder: diffusers' AutoencoderKL or AutoencoderTiny."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import torch

from histoloom.config import TrainAutoencoder
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


class Posterior(NamedTuple):
    """What an encoder says of images: the raw latents (b, c, h, w), and of a KL autoencoder their deviation, and its divergence (b,)."""

    mean: torch.Tensor
    std: torch.Tensor | None = None
    kl: torch.Tensor | None = None


def posterior(model: Autoencoder, images: torch.Tensor) -> Posterior:
    """Of images (b, 3, h, w) in [-1, 1]."""
    encoded = model.encode(images)
    if hasattr(encoded, "latent_dist"):
        of = encoded.latent_dist
        return Posterior(of.mean, of.std, of.kl())
    return Posterior(encoded.latents)
