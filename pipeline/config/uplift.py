"""The section `uplift`: whether synthetic tiles help a classifier."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Positive, Section

ArmName = Literal["real", "real+classical", "real+synthetic", "real+synthetic+classical", "synthetic"]


class Uplift(Section):
    arms: tuple[ArmName, ...] = Field(
        ("real", "real+classical", "real+synthetic", "real+synthetic+classical", "synthetic"),
        description="what classifiers are trained on; the others are compared with the first",
    )
    ratios: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0,), description="synthetic tiles to real ones in the arms that have both"
    )
    seeds: int = Field(5, ge=0, description="classifiers trained for each arm; 0 leaves the experiment out")
    classifier: str = Field(
        "efficientnet-lite0",
        description="efficientnet-lite0 (ImageNet's weights), timm:NAME, or command for your own",
    )
    command: str | None = Field(
        None,
        description="called for each classifier with {dataset}, {predictions}, {steps} and {seed} filled in "
        "(docs/how-to/see-whether-it-helps.md)",
    )
    image_px: Positive = Field(96, description="tiles are resized to this side")
    steps: Positive = Field(300, description="of the optimiser, the same for every arm")
    batch_size: Positive = 32
    learning_rate: float = Field(3e-4, gt=0)

    @model_validator(mode="after")
    def _has_what_it_compares(self):
        if len(set(self.arms)) != len(self.arms) or not self.arms:
            raise ValueError("uplift.arms must name at least one arm, and none twice")
        if "synthetic" in self.arms[0]:
            raise ValueError("uplift.arms must begin with an arm of real tiles, with which the others are compared")
        if (self.classifier == "command") != (self.command is not None):
            raise ValueError("uplift.command and uplift.classifier: command go together")
        if self.command and not all(part in self.command for part in ("{dataset}", "{predictions}")):
            raise ValueError("uplift.command must have {dataset} and {predictions} in it")
        return self
