"""What learners learn, which one is taken where params name none, and what each can be told."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, Tag

from histoloom.config.base import BackboneName, Fraction, Named, Positive, Scheduler, Size, Solved
from histoloom.config.train_denoiser import LossWeight, TrainDenoiser
from histoloom.registry import PLACES, Kind, entry_of, known

LearnerTask = Literal["label", "mask"]
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
    backbone: BackboneName = "unet"
    channels: tuple[Size, ...] = Field((32, 64, 64), min_length=1, max_length=8)
    layers_per_block: Size = 1
    attention_head_dim: Size = 8
    coding: Literal["one_hot", "bits"] = "one_hot"
    prediction: Literal["epsilon", "v_prediction", "sample"] = "sample"
    schedule: Literal["linear", "scaled_linear", "cosine", "quadratic"] = "cosine"
    train_timesteps: Positive = 1000
    loss_weight: LossWeight = LossWeight(kind="none")
    ema_decay: Fraction = 0.99
    scheduler: Scheduler = "ddim"
    sampling_steps: Positive = 10
    samples: Positive = Field(5, description="of each tile, each from its own noise")
    reduce: Literal["vote", "staple"] = Field("staple", description="what joins them")

    @classmethod
    def of(cls, denoiser: TrainDenoiser, sample: Solved, samples: int, reduce: str) -> Self:
        """The learner that is told what a study tells its denoiser of masks, and how this is sampled."""
        told = denoiser.model_dump(include={*cls.model_fields} & {*TrainDenoiser.model_fields})
        solved = {"scheduler": sample.scheduler, "sampling_steps": sample.steps, "samples": samples, "reduce": reduce}
        return cls.model_validate({**told, **solved, "coding": denoiser.target.coding})

    @property
    def loads(self) -> dict[Kind, tuple[str, ...]]:
        return {"target": ("masks",), "backbone": (self.backbone,), "reduce": (self.reduce,)}


class OwnLearner(PlainLearner):
    """A learner from a file of the user's (`extensions`). It is told whatever stands here, and checks it itself."""

    model_config = ConfigDict(extra="allow")

    @property
    def told(self) -> dict[str, Any]:
        """What stands here beside its name."""
        return dict(self.model_extra or {})


_TOLD = {"diffusion"}
"""Learners that have a section of their own."""


def _section(value: Any) -> str:
    """Which section a learner is stated by."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", value)
    if name in _TOLD:
        return f"[{name}]"
    is_own = isinstance(name, str) and name not in PLACES["learner"] and entry_of("learner", name) == name
    return "[own]" if is_own else "[plain]"


LearnerConfig = Annotated[
    Annotated[PlainLearner, Tag("[plain]")]
    | Annotated[DiffusionLearner, Tag("[diffusion]")]
    | Annotated[OwnLearner, Tag("[own]")],
    Discriminator(_section),
]
"""`learner: unet` is short for `learner: {name: unet}`."""
