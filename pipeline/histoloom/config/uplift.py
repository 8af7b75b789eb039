"""The section `uplift`: whether synthetic tiles help a learner of labels or of masks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from histoloom.config.base import Distinct, Positive, Section, Size
from histoloom.config.file_keys import Names
from histoloom.config.learners import DEFAULT_LEARNERS, LearnerConfig, LearnerTask, PlainLearner

ArmName = Literal[
    "real", "real+classical", "real+synthetic", "real+synthetic+classical", "real+unfiltered", "synthetic", "synthetic-then-real",
    "synthetic-then-real+classical",
]  # fmt: skip
_COMMANDS = ("command", {"name": "command"})
"""How params state that the learner is the user's own command."""


class Uplift(Section):
    renamed: ClassVar[dict[str, str]] = {"classifier": "learner"}
    task: LearnerTask = Field("label", description="what the learner predicts of a tile")
    arms: tuple[ArmName, ...] = ("real", "real+classical", "real+synthetic", "real+synthetic+classical", "synthetic")
    """mixtures of tiles that are trained on; the others are compared with the first. A command has no arms with
    classical. real+unfiltered has as many synthetic tiles as real+synthetic, drawn from all, accepted or not. synthetic-then-real learns from synthetic tiles
    in the first half of the steps, and from real ones in the second"""
    ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Distinct] = Field((1.0,), min_length=1)
    """synthetic tiles for each real one, in the arms that have both"""
    seeds: int = Field(5, ge=0, le=1000)
    """models trained for each arm; 0 leaves the experiment out, and is the default with fewer than two classes of labels"""
    learner: LearnerConfig | None = None
    """the network: a name, or its keys; unstated, efficientnet-lite0 (ImageNet's weights) for labels and unet (small, from
    scratch) for masks. Others: timm:NAME (from scratch) for labels; unet-imagenet and diffusion (masks diffused, given the
    tile) for masks; denoiser (a head on the study's frozen denoiser) and command (your own) for both"""
    command: Annotated[str | None, Names.COMMAND] = None
    """called for each model with {dataset}, {predictions}, {steps} and {seed} filled in
    (docs/how-to/see-whether-it-helps.md)"""
    image_px: Size = Field(96, description="tiles are resized to this side to learn labels; masks stay as they are")
    steps: Positive = Field(300, description="of the optimiser, the same for every arm")
    batch_size: Size = 32
    """tiles in a step"""
    learning_rate: float | None = Field(None, gt=0)
    """unstated, the learner's own: 3e-4 for networks of labels, 1e-3 for diffusion, 5e-4 for a denoiser that
    is tuned, 2e-3 for the others"""

    @property
    def learner_config(self) -> LearnerConfig:
        """The learner, where it is unstated too."""
        return self.learner or PlainLearner(name=DEFAULT_LEARNERS[self.task])

    @property
    def learner_name(self) -> str:
        return self.learner_config.name

    @model_validator(mode="before")
    @classmethod
    def _arms_of_a_command(cls, data: Any) -> Any:
        """A command augments as it likes: unless stated, no arm asks it for more."""
        if isinstance(data, dict) and data.get("learner") in _COMMANDS and data.get("arms") is None:
            return data | {"arms": [arm for arm in cls.model_fields["arms"].default if "classical" not in arm]}
        return data

    @model_validator(mode="after")
    def _has_what_it_compares(self):
        if len(set(self.arms)) != len(self.arms) or not self.arms:
            raise ValueError("uplift.arms must name at least one arm, and none twice")
        if "synthetic" in self.arms[0] or "unfiltered" in self.arms[0]:
            raise ValueError("uplift.arms must begin with an arm of real tiles, with which the others are compared")
        if (self.learner_name == "command") != (self.command is not None):
            raise ValueError("uplift.command and uplift.learner: command go together")
        if self.command and (asked := [arm for arm in self.arms if "classical" in arm]):
            raise ValueError(
                f"uplift.arms names {asked[0]}, and a command is given the same tiles with it as without: take it out, and augment in the "
                "command"
            )
        if self.command and (asked := [arm for arm in self.arms if "then" in arm]):
            raise ValueError(f"uplift.arms names {asked[0]}, and a command is given all tiles at once: take it out")
        if self.command and not all(part in self.command for part in ("{dataset}", "{predictions}")):
            raise ValueError("uplift.command must have {dataset} and {predictions} in it")
        return self
