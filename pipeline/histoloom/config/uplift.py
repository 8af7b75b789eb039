"""The section `uplift`: whether synthetic tiles help a classifier or a segmenter."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from histoloom.config.base import Distinct, Positive, Section, Size
from histoloom.config.file_keys import Names

ArmName = Literal[
    "real", "real+classical", "real+synthetic", "real+synthetic+classical", "real+unfiltered", "synthetic"
]


class Uplift(Section):
    task: Literal["label", "mask"] = Field(
        "label", description="what is learnt of a tile: its label, by a classifier, or its mask, by a U-Net"
    )
    arms: tuple[ArmName, ...] = Field(
        ("real", "real+classical", "real+synthetic", "real+synthetic+classical", "synthetic"),
        description="what is trained on; the others are compared with the first. A command has no arms with classical. real+unfiltered has as many synthetic "
        "tiles as real+synthetic, drawn of all, accepted or not",
    )
    ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Distinct] = Field(
        (1.0,), min_length=1, description="synthetic tiles to real ones in the arms that have both"
    )
    seeds: int = Field(
        5,
        ge=0,
        le=1000,
        description="models trained for each arm; 0 leaves the experiment out, and is taken where a label's task has fewer than two "
        "classes",
    )
    classifier: str = Field(
        "efficientnet-lite0",
        description="of labels: efficientnet-lite0 (ImageNet's weights), timm:NAME, or command for your own; of masks: a "
        "U-Net from scratch where this is left as it is, or command",
    )
    command: Annotated[str | None, Names.COMMAND] = Field(
        None,
        description="called for each model with {dataset}, {predictions}, {steps} and {seed} filled in "
        "(docs/how-to/see-whether-it-helps.md)",
    )
    image_px: Size = Field(96, description="tiles are resized to this side to learn labels; masks stay as they are")
    steps: Positive = Field(300, description="of the optimiser, the same for every arm")
    batch_size: Size = 32
    learning_rate: float | None = Field(
        None, gt=0, description="unstated, 3e-4 for labels, where weights are loaded, and 2e-3 for masks"
    )

    @property
    def rate(self) -> float:
        """The learning rate, where it is unstated too."""
        return self.learning_rate or (2e-3 if self.task == "mask" else 3e-4)

    @model_validator(mode="before")
    @classmethod
    def _arms_of_a_command(cls, data: Any) -> Any:
        """A command augments as it likes: unless stated, no arm asks it for more."""
        if isinstance(data, dict) and data.get("classifier") == "command" and data.get("arms") is None:
            return data | {"arms": [arm for arm in cls.model_fields["arms"].default if "classical" not in arm]}
        return data

    @model_validator(mode="after")
    def _has_what_it_compares(self):
        if len(set(self.arms)) != len(self.arms) or not self.arms:
            raise ValueError("uplift.arms must name at least one arm, and none twice")
        if "synthetic" in self.arms[0] or "unfiltered" in self.arms[0]:
            raise ValueError("uplift.arms must begin with an arm of real tiles, with which the others are compared")
        if self.task == "mask" and self.classifier not in ("efficientnet-lite0", "command"):
            raise ValueError(
                f"uplift.classifier: {self.classifier} learns labels, and uplift.task is mask, which a U-Net learns: leave "
                "uplift.classifier out, or set it to command"
            )
        if (self.classifier == "command") != (self.command is not None):
            raise ValueError("uplift.command and uplift.classifier: command go together")
        if self.command and (asked := [arm for arm in self.arms if "classical" in arm]):
            raise ValueError(
                f"uplift.arms names {asked[0]}, and a command is given the same tiles with it as without: take it out, and augment in the "
                "command"
            )
        if self.command and not all(part in self.command for part in ("{dataset}", "{predictions}")):
            raise ValueError("uplift.command must have {dataset} and {predictions} in it")
        return self
