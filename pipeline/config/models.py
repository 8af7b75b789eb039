"""The sections `train_autoencoder`, `encode` and `train_denoiser`."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from pipeline.config.base import ConditionName, Fraction, Guided, Natural, Positive, Section, Size


class TrainAutoencoder(Section):
    init: str = Field(
        "scratch", description="scratch, the name of a packaged model, or a folder or hub id of a diffusers autoencoder"
    )
    revision: str | None = None
    arch: Literal["kl", "tiny"] = "tiny"
    latent_channels: Size = 4
    down_factor: Literal[2, 4, 8, 16] = 4
    channels: Size = 32
    blocks: Size = Field(1, description="residual blocks of a level; of tiny's finest level, always 1")
    crop_px: Size | None = Field(None, description="train on crops of this side; unstated, on whole tiles")
    kl_weight: float = Field(1e-6, ge=0)
    detail_weight: float = Field(0.5, ge=0, description="asks for as much local detail as there was, against blur")
    scale: Literal["measured", "kept"] = Field(
        "measured", description="of the latents: that of this study's train tiles, or what `init` came with"
    )
    perceptual_weight: float = Field(0.0, ge=0, description="of a distance in EfficientNet-Lite0's features")
    steps: Natural = Field(500, description="0 uses the loaded weights as they are")
    decoder_steps: Natural = Field(
        0,
        description="after `steps`, of the decoder alone, at half the learning rate, against a critic of patches in place of the "
        "perceptual distance: sharper, and a denoiser that knows the latents still fits",
    )
    critic_weight: float = Field(0.05, ge=0, description="of what that critic says")
    batch_size: Size = 16
    learning_rate: float = Field(1e-3, gt=0)
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    checkpoint_every: Positive = 200
    resume_from: str | None = None

    @model_validator(mode="after")
    def _has_what_it_keeps(self):
        if self.init == "scratch" and (self.scale == "kept" or not self.steps):
            raise ValueError("scale: kept and steps: 0 need an autoencoder to begin with: name it in init")
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


class Encode(Section):
    batch_size: Size = 32
    forms: Literal["none", "flips", "turns"] = Field(
        "flips", description="cache each tile's mirrored forms too (4), or turned ones as well (8)"
    )
    mask_detail: Literal[1, 2, 4] = Field(
        1,
        description="parts a latent pixel into this many cells a side for the mask, where it is larger than a nucleus",
    )
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="what the autoencoder computes in; bf16 is fp32 where a CPU hasn't it"
    )
    edges: bool = Field(False, description="give the mask a channel of nuclear outlines; every slide has 'instances'")


class LossWeight(Section):
    """`p2` is Choi et al. 2022, `min_snr` is Hang et al. 2023."""

    kind: Literal["none", "min_snr", "p2"] = "min_snr"
    gamma: float = Field(5.0, ge=0)
    k: float = Field(1.0, gt=0)


class Distil(Guided):
    """Progressive distillation (Salimans & Ho 2022) of what `init` names; each halving takes `train_denoiser.steps`.

    `guidance` and its interval are the first teacher's, and the student has them inside.
    """

    steps: Positive = Field(4, description="of DDIM, that the student needs")
    teacher_steps: Positive = Field(32, description="a power of two times as many, that its first teacher takes")

    @model_validator(mode="after")
    def _halves(self):
        times = self.teacher_steps / self.steps
        if times < 2 or times != 2 ** round(math.log2(times)):
            raise ValueError("teacher_steps must be 2, 4, 8, ... times steps")
        return self


class TrainDenoiser(Section):
    init: str = Field(
        "scratch", description="scratch, the name of a packaged model, or a folder or hub id of a UNet2DConditionModel"
    )
    revision: str | None = None
    adapt: Literal["full", "lora"] = Field(
        "full", description="what of a loaded model is trained: all of it, or low-rank updates (Hu et al. 2021)"
    )
    lora_rank: Size = 16
    distil: Distil | None = Field(
        None,
        description="make a loaded model need fewer steps, guided inside as its teacher was; unstated, train it as it is",
    )
    few_steps: bool = Field(
        False,
        description="add, after training, what distillation taught the packaged model: sample in its few steps of ddim",
    )
    conditions: tuple[ConditionName, ...] = ("label", "text")
    drop: dict[ConditionName, Fraction] = Field({}, description="probability of the null in training; 0.1 if unstated")
    map_input: Literal["concat", "spade"] = Field(
        "concat",
        description="how a mask enters: beside the latents, or as SPADE norms in the decoder (Park et al. 2019)",
    )
    channels: tuple[Size, ...] = Field((48, 96), min_length=1, max_length=8)
    layers_per_block: Size = 1
    attention_head_dim: Size = 8
    attention: Literal["auto", "sdpa", "xformers"] = "auto"
    prediction: Literal["epsilon", "v_prediction", "sample"] = "v_prediction"
    schedule: Literal["linear", "scaled_linear", "cosine", "quadratic"] = "cosine"
    train_timesteps: Positive = 1000
    loss_weight: LossWeight = LossWeight()
    ema_decay: Fraction = 0.999
    steps: Natural = Field(1000, description="0 uses the loaded weights as they are")
    batch_size: Size = 32
    windows_latent_px: tuple[Positive, ...] = Field(
        (),
        description="a batch shows windows of one of these sides, drawn, of its tiles' latents; unstated, whole tiles",
    )
    learning_rate: float = Field(4e-4, gt=0)
    warmup_steps: Natural = 50
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    checkpoint_every: Positive = 200
    resume_from: str | None = Field(None, description="a checkpoint folder to go on from; missing is an error")

    def drop_of(self, condition: str) -> float:
        return self.drop.get(condition, 0.1)

    def windows_fault(self, latent_px: int, levels: int) -> str | None:
        """What is wrong with the windows of tiles of `latent_px`, which a UNet of so many levels must be able to halve."""
        halved = 2 ** (levels - 1)
        bad = [side for side in self.windows_latent_px if side > latent_px or side % halved]
        return (
            f"it names {bad[0]}, and a window must be a multiple of {halved} and no longer than a tile's latents, {latent_px}."
            if bad
            else None
        )

    @model_validator(mode="after")
    def _has_what_it_adapts(self):
        if self.init == "scratch" and (self.adapt == "lora" or not self.steps):
            raise ValueError("adapt: lora and steps: 0 need a model to begin with: name it in init")
        if self.distil and (self.init == "scratch" or self.adapt == "lora" or not self.steps):
            raise ValueError("distil needs a trained model in init, adapt: full, and steps for each halving")
        if self.few_steps and (self.init == "scratch" or self.distil):
            raise ValueError("few_steps needs a packaged model in init, and no distil")
        if self.init != "scratch" and self.map_input == "spade":
            raise ValueError(
                "a trained model with SPADE's norms can't be begun from: use map_input: concat, or init: scratch"
            )
        return self
