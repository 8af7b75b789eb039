"""The section `train_autoencoder`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from histoloom.config.base import Natural, Positive, Section, Size
from histoloom.config.file_keys import Names


class TrainAutoencoder(Section):
    init: Annotated[str, Names.MODEL] = "scratch"
    """scratch, the name of a packaged model, or a folder or hub id of a diffusers autoencoder"""
    revision: str | None = None
    """commit of the hub's repository"""
    arch: Literal["kl", "tiny"] = "tiny"
    """tiny: diffusers' AutoencoderTiny; kl: its AutoencoderKL, a variational one"""
    latent_channels: Size = 4
    """numbers in each latent pixel"""
    down_factor: Literal[2, 4, 8, 16] = 4
    """factor by which each side of the latents is smaller than the tile's"""
    channels: Size = 32
    """width of the network"""
    blocks: Size = Field(1, description="residual blocks of a level; tiny's finest level always has 1")
    crop_px: Size | None = Field(None, description="train on crops of this side; unstated, on whole tiles")
    kl_weight: float = Field(1e-6, ge=0)
    """of kl: weight of the KL term, which keeps latents near a normal distribution"""
    detail_weight: float = Field(0.5, ge=0, description="weight of the loss of local detail, against blur")
    scale: Literal["measured", "kept"] = "measured"
    """scale of the latents: measured on this study's train tiles, or kept from `init`"""
    perceptual_weight: float = Field(0.0, ge=0, description="weight of a distance in EfficientNet-Lite0's features")
    steps: Natural = Field(500, description="0 uses the loaded weights as they are")
    decoder_steps: Natural = 0
    """after `steps`, steps of the decoder alone, at half the learning rate, against a discriminator of patches. Pictures get
    sharper; the latents stay as they are"""
    critic_weight: float = Field(0.05, ge=0, description="weight of that discriminator's loss")
    batch_size: Size = 16
    """tiles or crops in a step"""
    learning_rate: float = Field(1e-3, gt=0)
    """of the optimiser"""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """precision of training: no is fp32; a CPU without bf16 uses fp32"""
    checkpoint_every: Positive = 200
    """steps between checkpoints; a killed run loses at most these"""
    patience: Positive | None = Field(
        None,
        description="stop `steps` if the KID of rebuilt val tiles (EfficientNet-Lite0) has not improved for so many checkpoints, and take "
        "the best; unstated, all steps are taken",
    )
    resume_from: Annotated[str | None, Names.FILE] = None
    """a checkpoint folder to continue from; it is an error if it is missing"""

    @model_validator(mode="after")
    def _has_what_it_keeps(self):
        if self.init == "scratch" and (self.scale == "kept" or not self.steps):
            raise ValueError("scale: kept and steps: 0 need a pretrained autoencoder: name it in init")
        if self.crop_px and self.crop_px % self.down_factor:
            raise ValueError("crop_px must be a multiple of down_factor")
        if self.init == "scratch" and self.arch == "kl" and self.channels % self.norm_groups:
            raise ValueError(
                f"channels of a kl autoencoder must be a multiple of {self.norm_groups}, as many as it norms apart"
            )
        return self

    @property
    def norm_groups(self) -> int:
        return min(32, self.channels // 4 or 1)
