"""The section `uplift`: whether synthetic tiles help a learner of labels or of masks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from histoloom.config.arms import Arm, ArmName
from histoloom.config.base import Distinct, Positive, Section, Size
from histoloom.config.file_keys import Names
from histoloom.config.learners import DEFAULT_LEARNERS, LearnerConfig, LearnerTask, PlainLearner
from histoloom.config.train_encoders import SelfSupervision

_COMMANDS = ("command", {"name": "command"})
"""How params state that the learner is the user's own command."""


class Pretraining(Section):
    """Of arms with ssl: the learner's encoder is trained without labels on the tiles that the generator saw."""

    method: SelfSupervision = Field("vicreg", description="the self-supervised loss")
    steps: Positive = Field(300, description="of the optimiser")
    batch_size: Annotated[int, Field(ge=8)] = Field(64, description="tiles of a step")
    learning_rate: float = Field(3e-4, gt=0, description="of the optimiser")


class Uplift(Section):
    renamed: ClassVar[dict[str, str]] = {"classifier": "learner"}
    task: LearnerTask = Field("label", description="what the learner predicts of a tile")
    arms: tuple[ArmName, ...] = ("real", "strong", "strong+ssl", "strong+retrieval", "strong+synthetic")
    """what networks learn from. The first arm has real tiles alone, and the others are compared with it. Words, joined by +: real; strong
    (real tiles, strong augmentation); synthetic (accepted tiles); unfiltered (as many of all); synthetic-then-real (in turn, half of the
    steps each); retrieval (the unlabelled real tiles that are most like the labelled ones); ssl (`pretraining` before); classical (augmentation). -of-NAME
    takes the synthetic tiles of a request, or of several: strong+synthetic-of-varied-of-noised"""
    asked: ArmName | None = None
    """arm that your question is about: its gain is measured over the best of strong, strong+ssl and strong+retrieval; unstated, the first of
    `arms` with strong augmentation and synthetic tiles"""
    ratios: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Distinct] = Field((1.0,), min_length=1)
    """synthetic tiles for each real one, in the arms that have both: how many there may be, and how often they are seen"""
    seeds: int = Field(5, ge=0, le=1000)
    """models trained for each arm; 0 leaves the experiment out, and is the default where a `label` task has fewer than two classes"""
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
    learning_rate: float | Annotated[tuple[float, ...], Field(min_length=1), Distinct] | None = None
    """unstated, the learner's own: 3e-4 for networks of labels, 1e-3 for diffusion, 5e-4 for a denoiser that
    is tuned, 2e-3 for the others. Of several, each arm is trained with each, and val chooses for it"""
    pretraining: Pretraining = Pretraining()

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
            return data | {"arms": ["real", "real+synthetic", "synthetic"]}
        return data

    @property
    def rates(self) -> tuple[float | None, ...]:
        """The learning rates that each arm is tried with; None for the learner's own."""
        return self.learning_rate if isinstance(self.learning_rate, tuple) else (self.learning_rate,)

    @property
    def asked_arm(self) -> str | None:
        """The arm that the question is about, where there is one."""
        kinds = (Arm.of(name) for name in self.arms)
        return self.asked or next((a.name for a in kinds if a.has_synthetic and a.augmentation == "strong"), None)

    @model_validator(mode="after")
    def _has_what_it_compares(self):
        if len(set(self.arms)) != len(self.arms) or not self.arms:
            raise ValueError("uplift.arms must name at least one arm, and none twice")
        if Arm.of(self.arms[0]).has_synthetic:
            raise ValueError("uplift.arms must begin with an arm of real tiles, with which the others are compared")
        if self.asked is not None and (self.asked not in self.arms or not Arm.of(self.asked).has_synthetic):
            raise ValueError(f"uplift.asked is {self.asked}: name one of uplift.arms that has synthetic tiles")
        if any(rate is not None and rate <= 0 for rate in self.rates):
            raise ValueError("uplift.learning_rate must be above 0")
        if (self.learner_name == "command") != (self.command is not None):
            raise ValueError("uplift.command and uplift.learner: command go together")
        if self.command:
            self._check_command(self.command)
        return self

    def _check_command(self, command: str) -> None:
        for arm in map(Arm.of, self.arms):
            if arm.augmentation != "none":
                raise ValueError(
                    f"uplift.arms names {arm.name}, and a command is given the same tiles with it as without: take it out, and augment in "
                    "the command"
                )
            if arm.in_turn:
                raise ValueError(f"uplift.arms names {arm.name}, and a command is given all tiles at once: take it out")
            if arm.pretrained:
                raise ValueError(
                    f"uplift.arms names {arm.name}, and a command begins from its own weights: take it out"
                )
        if not all(part in command for part in ("{dataset}", "{predictions}")):
            raise ValueError("uplift.command must have {dataset} and {predictions} in it")
