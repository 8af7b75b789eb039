"""What learners learn, which one is taken where params name none, and what each can be told."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from histoloom.config.base import BackboneName, BlockWidth, Fraction, Named, Natural, Positive, Scheduler, Size, Solved
from histoloom.config.file_keys import Names
from histoloom.config.train_denoiser import LossWeight, TrainDenoiser
from histoloom.registry import PLACES, Kind, entry_of, known

LearnerTask = Literal["label", "mask"]
MaskLoss = Literal["dice", "structure"]
DEFAULT_LEARNERS: dict[LearnerTask, str] = {"label": "efficientnet-lite0", "mask": "unet"}
"""Task to the learner that is taken where none is named. Filters look with that of masks."""


def _check(name: str) -> str:
    if entry_of("learner", name) is None:
        names = (f"{place}NAME" if place.endswith(":") else place for place in known("learner"))
        raise ValueError(f"'{name}' is no learner; there are {', '.join(names)}")
    return name


LearnerName = Annotated[str, AfterValidator(_check)]


class PlainLearner(Named):
    """A learner that has nothing to be told."""

    name: LearnerName

    @property
    def loads(self) -> dict[Kind, tuple[str, ...]]:
        """The registered pieces that it is made of, beside those of the study's models."""
        return {}


class DiffusionLearner(PlainLearner):
    """A denoiser of masks that is given the tile. What it can be told is told to a model of the study by `train_denoiser` and `sample`."""

    name: Literal["diffusion"] = "diffusion"
    backbone: BackboneName = Field("unet", description="as train_denoiser.backbone")
    channels: tuple[BlockWidth, ...] = Field(
        (32, 64, 64), min_length=1, max_length=8, description="as train_denoiser.channels"
    )
    layers_per_block: Size = Field(1, description="as train_denoiser.layers_per_block")
    attention_head_dim: Size = Field(8, description="as train_denoiser.attention_head_dim")
    coding: Literal["one_hot", "bits"] = Field("one_hot", description="as train_denoiser.target.coding")
    prediction: Literal["epsilon", "v_prediction", "sample"] = Field(
        "sample", description="as train_denoiser.prediction"
    )
    schedule: Literal["linear", "scaled_linear", "cosine", "quadratic"] = Field(
        "cosine", description="as train_denoiser.schedule"
    )
    train_timesteps: Positive = Field(1000, description="as train_denoiser.train_timesteps")
    loss_weight: LossWeight = LossWeight(kind="none")
    ema_decay: Fraction = Field(0.99, description="as train_denoiser.ema_decay")
    scheduler: Scheduler = Field("ddim", description="as sample.scheduler")
    sampling_steps: Positive = Field(10, description="as sample.steps")
    samples: Positive = Field(5, description="samples of each tile, each from its own noise")
    reduce: Literal["vote", "staple"] = Field("staple", description="how the samples are joined")

    @model_validator(mode="after")
    def _diffuses_masks(self):
        if self.backbone == "mlp":
            raise ValueError("backbone: mlp is of vectors, and this learner diffuses masks: take another")
        return self

    @classmethod
    def of(cls, denoiser: TrainDenoiser, sample: Solved, samples: int, reduce: str) -> Self:
        """The learner that is told what a study tells its denoiser of masks, and how this is sampled."""
        told = denoiser.model_dump(include={*cls.model_fields} & {*TrainDenoiser.model_fields})
        solved = {"scheduler": sample.scheduler, "sampling_steps": sample.steps, "samples": samples, "reduce": reduce}
        return cls.model_validate({**told, **solved, "coding": denoiser.target.coding})

    @property
    def loads(self) -> dict[Kind, tuple[str, ...]]:
        return {"target": ("masks",), "backbone": (self.backbone,), "reduce": (self.reduce,)}


class DenoiserLearner(PlainLearner):
    """A head on the features of a trained denoiser of images."""

    name: Literal["denoiser"] = "denoiser"
    init: Annotated[str, Names.MODEL] | None = None
    """the name of a packaged model, or a folder that holds encoders, autoencoder and denoiser; unstated, the study's own"""
    levels: tuple[Fraction, ...] = Field((0.05,), min_length=1)
    """noise levels at which the denoiser reads a tile, one after another: fractions of the noise schedule"""
    blocks: Natural = Field(0, description="how many of the decoder's blocks are read, the finest first; 0 for all")
    tune: bool = Field(False, description="train the denoiser with the head, on clean tiles; levels are then ignored")
    weights: Literal["trained", "drawn"] = "trained"
    """weights that a tuned denoiser begins with: trained, or drawn at random to see what its training is worth"""
    loss: MaskLoss = "dice"
    """of masks: cross entropy and soft Dice; or structure: structural similarity and the focal loss (Purma et al. 2023)"""

    @model_validator(mode="after")
    def _draws_what_it_tunes(self):
        if self.weights == "drawn" and not self.tune:
            raise ValueError("weights: drawn is of tune: true: features of an untrained denoiser tell nothing")
        return self


class OwnLearner(PlainLearner):
    """A learner from a file of the user's (`extensions`). It is told whatever stands here, and checks it itself."""

    model_config = ConfigDict(extra="allow")

    @property
    def told(self) -> dict[str, Any]:
        """What stands here beside its name."""
        return dict(self.model_extra or {})


_TOLD = {"diffusion", "denoiser"}
"""Learners that have a section of their own."""


def _section(value: Any) -> str:
    """Which section a learner is stated by."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", value)
    if isinstance(name, str) and name in _TOLD:
        return f"[{name}]"
    is_own = isinstance(name, str) and name not in PLACES["learner"] and entry_of("learner", name) == name
    return "[own]" if is_own else "[plain]"


LearnerConfig = Annotated[
    Annotated[PlainLearner, Tag("[plain]")]
    | Annotated[DiffusionLearner, Tag("[diffusion]")]
    | Annotated[DenoiserLearner, Tag("[denoiser]")]
    | Annotated[OwnLearner, Tag("[own]")],
    Discriminator(_section),
]
"""`learner: unet` is short for `learner: {name: unet}`."""
