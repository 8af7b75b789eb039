"""The section `train_denoiser`."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, computed_field, model_validator

from histoloom.config.base import (
    BackboneName,
    BlockWidth,
    ConditionName,
    Fraction,
    Guided,
    Named,
    Natural,
    Positive,
    Section,
    Size,
    TargetName,
)
from histoloom.config.file_keys import Names
from histoloom.registry import PLACES

Pictured = Literal["picture", "partner"]
Variance = Annotated[float, Field(gt=0, lt=1)]
"""Of the noise that a time of the forward process adds."""


_BACKBONE_OF = {"vectors": "mlp", "volumes": "unet3d"}
"""Of targets that are no pictures: the one backbone of the package that takes them."""


class LossWeight(Section):
    """`p2` is Choi et al. 2022, `min_snr` is Hang et al. 2023."""

    kind: Literal["none", "min_snr", "p2"] = "min_snr"
    """how the loss weighs noise levels. none: alike; min_snr: by the signal-to-noise ratio, at most gamma; p2: by (k + ratio)
    to the power of -gamma"""
    gamma: float = Field(5.0, ge=0)
    """of min_snr and p2"""
    k: float = Field(1.0, gt=0)
    """of p2"""
    boundary: float | None = Field(None, gt=0)
    """of masks: the exponent gamma by which the loss of a pixel falls with its distance from the border of its class, the
    faster the less noise there is (Bozorgpour et al. 2023, DermoSegDiff); unstated, all pixels count alike"""


class Distil(Guided):
    """Progressive distillation (Salimans & Ho 2022) of what `init` names; each halving takes `train_denoiser.steps`.

    `guidance` and its interval are the first teacher's, and the student has them inside.
    """

    steps: Positive = Field(4, description="the student's steps of DDIM")
    teacher_steps: Positive = Field(32, description="steps of the first teacher: `steps` times a power of two")

    @model_validator(mode="after")
    def _halves(self):
        times = self.teacher_steps / self.steps
        if times < 2 or times != 2 ** round(math.log2(times)):
            raise ValueError("teacher_steps must be 2, 4, 8, ... times steps")
        return self


class Prior(Section):
    """What a loaded model could make, and is to stay able to, while it learns a few tiles: it is trained on tiles of its own
    beside them (Ruiz et al. 2023, DreamBooth)."""

    tiles: Positive = Field(
        64, description="tiles that it makes before training, under the train tiles' other conditions"
    )
    leave_out: tuple[ConditionName, ...] = Field(min_length=1)
    """conditions that mark the new tiles, such as label; its own tiles are made and learnt without them"""
    weight: float = Field(
        1.0, gt=0, description="weight of the loss of its own tiles, relative to that of the new ones"
    )
    steps: Positive = Field(20, description="steps of ddim that make its own tiles")


class LabelClassifier(Section):
    """A classifier of noised data, whose gradient pushes sampling to a label (sample.classifier_guidance; Dhariwal & Nichol 2021)."""

    channels: tuple[BlockWidth, ...] = Field((32, 64, 128), min_length=1, max_length=8)
    """of its blocks, each of which halves the sides"""
    steps: Positive = 1000
    """steps of the optimiser"""
    batch_size: Size = 32
    """tiles in a step"""
    learning_rate: float = Field(4e-4, gt=0)
    """of the optimiser"""


class DiffusedData(Named):
    """What is diffused. `target: pixels` is short for `target: {name: pixels}`."""

    name: TargetName = "latents"
    """an autoencoder's latents; or, without an autoencoder, pixels, masks, instances (masks with nuclei numbered),
    vectors or volumes"""
    factor: Literal[1, 2, 4, 8, 16] = 1
    """of pixels, masks, instances and volumes: factor by which each side is reduced before diffusion"""
    coding: Literal["one_hot", "bits"] = "one_hot"
    """of masks: a channel a class, or the bits of its number (Chen et al. 2023)"""
    least_px: Natural = 0
    """of masks and instances: islands of a class with fewer pixels become background in what is made"""
    condition: ConditionName | None = None
    """of vectors: the condition whose numbers are diffused, such as label or image"""

    @model_validator(mode="after")
    def _has_a_condition(self):
        if (self.name == "vectors") != (self.condition is not None):
            raise ValueError("name: vectors and the condition that they are of go together")
        return self


class TrainDenoiser(Section):
    init: Annotated[str, Names.MODEL] = "scratch"
    """scratch, the name of a packaged model, a folder or hub id of a UNet2DConditionModel, or one of Stable
    Diffusion's form (model_index.json)"""
    revision: str | None = None
    """commit of the hub's repository"""
    adapt: Literal["full", "lora", "controlnet"] = "full"
    """what of a loaded model is trained: all of it, low-rank updates (Hu et al. 2021), or a ControlNet beside it that reads mask, picture and partner (Zhang et al. 2023)"""
    lora_rank: Size = 16
    """of lora: rank of the updates; a higher rank can change more"""
    prior: Prior | None = None
    """against forgetting: while a loaded model learns a few new tiles, train it on tiles of its own too"""
    distil: Distil | None = None
    """distil the loaded model to fewer steps, with its teacher's guidance built in; unstated, train it as usual"""
    few_steps: bool = False
    """after training, add the package's low-rank updates for sampling in few steps of ddim"""
    target: DiffusedData = Field(DiffusedData(), description="what is diffused: a name, or its keys")
    backbone: BackboneName = Field(
        "unet",
        description="the network: unet; r2unet (Alom et al. 2018), convolutional and recurrent; swin (Liu et al. 2021), attention in shifted "
        "windows; unet3d for volumes; or mlp for vectors",
    )
    conditions: tuple[ConditionName, ...] = Field(
        ("label", "text"), description=f"what the denoiser reads: any of {', '.join(PLACES['condition'])}"
    )
    drop: dict[ConditionName, Fraction] = Field(
        {}, description="condition to the probability that it is left out in a training step; 0.1 if unstated"
    )
    augment: dict[Pictured, Fraction] = Field({})
    """most noise that training adds to a given picture or partner: a standard deviation, for values between -1 and 1. The network is told how
    much was added (Ho et al. 2022)"""
    map_input: Literal["concat", "spade", "controlnet"] = "concat"
    """how maps enter: concatenated to the latents, by SPADE norms in the decoder (Park et al. 2019), or by a ControlNet,
    which adapt: controlnet sets"""
    time_input: Literal["add", "scale_shift"] = "add"
    """of a new unet: how time, and vectors with it, enter its blocks: added, or as scale and shift of their group norms
    (Dhariwal & Nichol 2021, adaptive group norm)"""
    channels: tuple[Size, ...] = Field((48, 96), min_length=1, max_length=8)
    """channels of each level of the network, the finest first; each further level halves the sides. Of mlp: widths of its layers"""
    layers_per_block: Size = 1
    """of unet: residual blocks of a level"""
    attention_head_dim: Size = 8
    """of unet and swin: channels of an attention head"""
    attention: Literal["auto", "sdpa", "xformers"] = "auto"
    """kernels of attention: sdpa is torch's own; auto takes xformers where it is installed and there is a GPU"""
    prediction: Literal["epsilon", "v_prediction", "sample"] = "v_prediction"
    """what the network predicts: the noise (epsilon), a mixture of noise and data (v_prediction), or the data (sample)"""
    schedule: Literal["linear", "scaled_linear", "cosine", "quadratic"] = "cosine"
    """how noise grows over the training timesteps"""
    betas: tuple[Variance, Variance] | None = None
    """first and last beta of the schedule linear or scaled_linear; unstated, the schedule's own"""
    train_timesteps: Positive = 1000
    """number of noise levels"""
    loss_weight: LossWeight = LossWeight()
    ema_decay: Fraction = 0.999
    """decay of the moving average of the weights, which is used for sampling"""
    steps: Natural = Field(1000, description="0 uses the loaded weights as they are")
    batch_size: Size = 32
    """tiles or windows in a step"""
    classifier: LabelClassifier | None = None
    """train a classifier of noised data after the denoiser; label must be a condition"""
    class_balanced: bool = Field(False, description="draw tiles of each label equally often; label must be a condition")
    windows_latent_px: tuple[Positive, ...] = ()
    """train on windows of the latents with these sides; each batch takes one of them at random; unstated, whole tiles"""
    learning_rate: float = Field(4e-4, gt=0)
    """of the optimiser"""
    warmup_steps: Natural = 50
    """steps in which the learning rate rises to its value"""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """precision of training: no is fp32; a CPU without bf16 uses fp32"""
    checkpoint_every: Positive = 200
    """steps between checkpoints; a killed run loses at most these"""
    resume_from: Annotated[str | None, Names.FILE] = None
    """a checkpoint folder to continue from; it is an error if it is missing"""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def trains(self) -> bool:
        """Whether denoiser or classifier takes a step. `encode` depends on this, and not on how many there are."""
        return self.steps > 0 or self.classifier is not None

    @property
    def encoded(self) -> tuple[str, ...]:
        """The conditions whose arrays are needed: those that are given, and the one that is diffused."""
        return self.conditions if self.target.condition is None else (*self.conditions, self.target.condition)

    def drop_of(self, condition: str) -> float:
        return self.drop.get(condition, 0.1)

    def windows_fault(self, latent_px: int, halved: int) -> str | None:
        """What is wrong with the windows of tiles of `latent_px`, whose sides must be multiples of `halved`."""
        bad = [side for side in self.windows_latent_px if side > latent_px or side % halved]
        limits = f"a window must be a multiple of {halved} and no longer than a tile's latents, {latent_px}."
        return f"it names {bad[0]}, and {limits}" if bad else None

    @model_validator(mode="before")
    @classmethod
    def _with_a_controlnet(cls, data: Any) -> Any:
        unstated = isinstance(data, dict) and data.get("adapt") == "controlnet" and data.get("map_input") is None
        return data | {"map_input": "controlnet"} if unstated else data

    @model_validator(mode="after")
    def _has_betas_in_order(self):
        if self.betas and self.betas[0] > self.betas[1]:
            raise ValueError(f"betas must grow, and is {list(self.betas)}")
        if self.betas and self.schedule not in ("linear", "scaled_linear"):
            raise ValueError(f"betas is of a schedule that is linear or scaled_linear, and schedule is {self.schedule}")
        return self

    @model_validator(mode="after")
    def _fits_its_target(self):
        if self.target.condition in self.conditions:
            raise ValueError(f"{self.target.condition} is what is diffused (target): it can't be among conditions too")
        if self.loss_weight.boundary and self.target.name != "masks":
            raise ValueError(f"loss_weight.boundary is of target: masks, and target is {self.target.name}")
        needed = _BACKBONE_OF.get(self.target.name)
        if self.backbone in PLACES["backbone"] and self.backbone != (needed or self.backbone):
            raise ValueError(f"target: {self.target.name} needs backbone: {needed}")
        if not needed and self.backbone in _BACKBONE_OF.values():
            raise ValueError(f"backbone: {self.backbone} diffuses vectors (mlp) or volumes (unet3d), and nothing else")
        return self

    @model_validator(mode="after")
    def _has_what_it_augments(self):
        if unknown := sorted({*self.augment} - {*self.conditions}):
            raise ValueError(f"augment names {unknown}, which conditions does not")
        return self

    @model_validator(mode="after")
    def _has_the_labels_it_uses(self):
        if self.class_balanced and "label" not in self.conditions:
            raise ValueError("class_balanced draws by label: name label among conditions")
        if self.classifier and "label" not in self.conditions:
            raise ValueError("classifier tells labels apart: name label among conditions")
        if self.classifier and self.target.name in ("vectors", "volumes"):
            raise ValueError(f"classifier looks at what has two sides, and target is {self.target.name}")
        return self

    @model_validator(mode="after")
    def _has_what_it_adapts(self):
        if self.time_input != "add" and (self.init != "scratch" or self.backbone != "unet"):
            raise ValueError("time_input is of a unet that is new: a loaded one has its own, so leave it out")
        if self.init == "scratch" and (self.adapt != "full" or not self.steps or self.map_input == "controlnet"):
            raise ValueError("adapt: lora, a ControlNet and steps: 0 need a pretrained model: name it in init")
        if self.adapt == "controlnet" and self.map_input != "controlnet":
            raise ValueError(
                f"adapt: controlnet gives maps to a ControlNet, and map_input is {self.map_input}: leave it out"
            )
        if self.distil and (self.init == "scratch" or self.adapt != "full" or not self.steps):
            raise ValueError("distil needs a trained model in init, adapt: full, and steps for each halving")
        if self.prior and (self.init == "scratch" or self.distil or not self.steps):
            raise ValueError("prior is of a model that is loaded (init) and trained on (steps), without distil")
        if self.prior and self.windows_latent_px:
            raise ValueError("prior trains on whole tiles: leave windows_latent_px out")
        if self.prior and (unknown := sorted({*self.prior.leave_out} - {*self.conditions})):
            raise ValueError(f"prior.leave_out names {unknown}, which conditions does not")
        if self.few_steps and (self.init == "scratch" or self.distil):
            raise ValueError("few_steps needs a packaged model in init, and no distil")
        return self
