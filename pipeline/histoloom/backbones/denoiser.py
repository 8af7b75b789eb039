"""The denoiser: diffusers' UNet2DConditionModel, with the conditions wired to its inputs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file

from histoloom.backbones.precision import set_precision
from histoloom.backbones.spade import install_spade
from histoloom.conditions.batch import Conditions
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import CONDITIONS_FILE, ConditionSpec, DenoiserRecord, read_denoiser_record
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from diffusers.models import UNet2DConditionModel


def build_denoiser(
    config: TrainDenoiser, specs: tuple[ConditionSpec, ...], latent_channels: int, latent_px: int
) -> UNet2DConditionModel:
    """A new UNet for latents (b, latent_channels, latent_px, latent_px) under the given conditions.

    The finest level is convolutional; the coarser ones attend, to the sequence where there is one.
    """
    from diffusers.models import UNet2DConditionModel

    levels = len(config.channels)
    if latent_px % 2 ** (levels - 1):
        raise HistoloomError(
            f"A latent of {latent_px} px cannot be halved {levels - 1} times: use fewer "
            "train_denoiser.channels, or tiles of another size."
        )
    text = next((s.size for s in specs if s.shape == "sequence"), None)
    vector = sum(s.size for s in specs if s.shape == "vector")
    maps = _map_channels(specs) if config.map_input == "concat" else 0
    kind = "CrossAttn" if text else "Attn"
    common, most = math.gcd(*config.channels), min(32, *(max(1, c // 4) for c in config.channels))
    groups = max(g for g in range(1, most + 1) if common % g == 0)
    model = UNet2DConditionModel(
        sample_size=latent_px,
        in_channels=latent_channels + maps,
        out_channels=latent_channels,
        block_out_channels=config.channels,
        layers_per_block=config.layers_per_block,
        down_block_types=("DownBlock2D",) + (f"{kind}DownBlock2D",) * (levels - 1),
        mid_block_type="UNetMidBlock2DCrossAttn" if text else "UNetMidBlock2D",
        up_block_types=(f"{kind}UpBlock2D",) * (levels - 1) + ("UpBlock2D",),
        cross_attention_dim=text or 32,
        attention_head_dim=config.attention_head_dim,
        norm_num_groups=groups,
        class_embed_type="projection" if vector else None,
        projection_class_embeddings_input_dim=vector or None,
    )
    if config.map_input == "spade" and _map_channels(specs):
        install_spade(model, _map_channels(specs))
    return model


def _map_channels(specs: tuple[ConditionSpec, ...]) -> int:
    return sum(s.size for s in specs if s.shape == "map")


def save_denoiser(model: UNet2DConditionModel, record: DenoiserRecord, folder: Path) -> None:
    """Save a denoiser's weights, and its record beside them."""
    model.save_pretrained(folder, safe_serialization=True)
    write_json(folder / CONDITIONS_FILE, record.json)


def load_unet(source: str | Path, revision: str | None = None) -> UNet2DConditionModel:
    """Load a UNet2DConditionModel from a folder or a hub id, safetensors only."""
    from diffusers.models import UNet2DConditionModel

    try:
        return UNet2DConditionModel.from_pretrained(
            source, revision=revision, use_safetensors=True, torch_dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        raise HistoloomError(f"No denoiser could be loaded from '{source}': {error}") from error


def load_denoiser(
    folder: Path | str, device: str, attention: str = "auto", precision: str = "fp32"
) -> tuple[UNet2DConditionModel, DenoiserRecord]:
    """Load what `train_denoiser` wrote, frozen.

    Raises
    ------
    HistoloomError
        when there is none.
    """
    record = read_denoiser_record(folder)
    if record is None:
        raise HistoloomError(f"'{folder}' holds no denoiser of histoloom's: it has no {CONDITIONS_FILE}.")
    spade = record.training.map_input == "spade" and _map_channels(record.conditions)
    model = _load_spade_unet(Path(folder), record.conditions) if spade else load_unet(folder)
    model.to(device).eval().requires_grad_(False)  # type: ignore[arg-type]  # diffusers' wrapper of `to` loses its self
    set_attention(model, attention, device)
    set_precision(model, precision, device)
    if device.startswith("cuda") and not spade:  # whose map is no argument
        from histoloom.backbones.graphs import Graphed

        model.forward = Graphed(model.forward)
    return model, record


def _load_spade_unet(folder: Path, specs: tuple[ConditionSpec, ...]) -> UNet2DConditionModel:
    from diffusers.models import UNet2DConditionModel

    model = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(folder))
    install_spade(model, _map_channels(specs))
    model.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
    return model


def denoise(model: torch.nn.Module, latents: torch.Tensor, timesteps: torch.Tensor, given: Conditions) -> torch.Tensor:
    """One prediction for a batch (b, c, h, w) at `timesteps` (b,) under its conditions."""
    holder = getattr(model, "spade_map", None)
    if holder is not None:
        holder.value = given.map
    elif given.map is not None:
        latents = torch.cat([latents, given.map], 1)
    return model(
        latents,
        timesteps,
        encoder_hidden_states=given.sequence,
        encoder_attention_mask=given.sequence_mask,
        class_labels=given.vector,
    ).sample.float()


def set_attention(model: UNet2DConditionModel, kind: str, device: str) -> str:
    """Choose the attention kernels; returns the kind in use.

    `auto` takes xformers where its kernels load on this device, else PyTorch's scaled dot product.

    Raises
    ------
    HistoloomError
        when xformers is asked for by name and its kernels don't load.
    """
    if kind == "sdpa" or (kind == "auto" and device != "cuda"):
        return "sdpa"
    try:
        if device != "cuda":
            raise RuntimeError("xformers has no CPU kernels")
        model.enable_xformers_memory_efficient_attention()
    except (ImportError, RuntimeError, ValueError) as error:
        if kind == "auto":
            return "sdpa"
        raise HistoloomError(
            f"train_denoiser.attention is xformers, and its kernels don't load ({error}). Install "
            "histoloom[xformers] on a machine with a GPU, or set attention: auto."
        ) from error
    return "xformers"
