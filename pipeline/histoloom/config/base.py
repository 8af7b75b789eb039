"""What every section of params.yaml is: frozen, and an unknown key is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from histoloom.registry import Kind, known

Fraction = Annotated[float, Field(ge=0, le=1)]
Interval = tuple[Fraction, Fraction]
_MOST = 2**31 - 1
Natural = Annotated[int, Field(ge=0, le=_MOST)]
Positive = Annotated[int, Field(gt=0, le=_MOST)]
Offset = Annotated[float, Field(ge=0, le=_MOST)]
"""Level-0 px from a slide's corner, fractions of one too."""
Size = Annotated[int, Field(gt=0, le=2**14)]
"""Of what is held in memory whole: the side of a picture, a batch, the width of a network."""
BlockWidth = Annotated[int, Field(ge=8, le=2**14, multiple_of=8)]
"""Channels of a block of a denoiser."""
Scale = Annotated[float, Field(ge=0.01, le=100)]
"""µm/px"""
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Scheduler = Literal["ddim", "euler", "dpmsolver++", "unipc"]


def _of_kind(kind: Kind) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known(kind):
            raise ValueError(f"'{name}' is no {kind}; there are {', '.join(known(kind))}")
        return name

    return AfterValidator(check)


ConditionName = Annotated[str, _of_kind("condition")]
TargetName = Annotated[str, _of_kind("target")]
BackboneName = Annotated[str, _of_kind("backbone")]
ReduceName = Annotated[str, _of_kind("reduce")]


Key = Literal["patient_id", "slide_id", "spot_id"]


def _distinct(values: tuple) -> tuple:
    if repeated := [value for place, value in enumerate(values) if value in values[:place]]:
        raise ValueError(f"it names {repeated[0]!r} twice")
    return values


Distinct = AfterValidator(_distinct)
"""Of a list whose values may not repeat."""


class Section(BaseModel):
    """A key that is null, or a section with nothing in it, is as one that isn't there. What a key means is its description, or the text
    below it.

    renamed : keys that the section had before, to what they are called now.
    nullable : keys of which null means something.
    """

    renamed: ClassVar[dict[str, str]] = {}
    nullable: ClassVar[tuple[str, ...]] = ()
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _stated(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cls.written_keys()
        for key, value in data.items():
            if isinstance(value, bool) and key in fields and not _takes_bool(fields[key].annotation):
                raise ValueError(f"{key} is {str(value).lower()}, and it is no switch")
        empty = fields.keys() - {*cls.nullable}
        return {key: value for key, value in data.items() if value is not None or key not in empty}

    @classmethod
    def written_keys(cls) -> dict[str, FieldInfo]:
        """Keys as they are written to their fields, those of this section alone before those that it shares with others."""
        fields = sorted(cls.model_fields.items(), key=lambda item: item[0] not in cls.__annotations__)
        return {field.alias or name: field for name, field in fields}


class Named(Section):
    """A section that its name alone may stand for: `reduce: vote` is short for `reduce: {name: vote}`."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data


def _takes_bool(kind: Any) -> bool:
    return kind is bool or any(_takes_bool(inner) for inner in get_args(kind))


_INTERVALS: dict[str, Interval] = {"mask": (0.2, 0.6)}


class Guided(Section):
    """What is stepped under guidance."""

    guidance: Annotated[float, Field(ge=0)] | dict[ConditionName, Annotated[float, Field(ge=0)]] = 2.0
    """scale of classifier-free guidance, one for all or one for each condition; 1 is no guidance, 0 ignores the condition"""
    guidance_interval: Interval | dict[ConditionName, Interval] = _INTERVALS
    """timesteps at which guidance acts: two fractions of the training timesteps, 0 is data and 1 is noise (Kynkäänniemi et al. 2024), or two for
    each condition. A condition that isn't named is guided at every step. Outside its interval, a scale above 1 counts as 1"""

    @model_validator(mode="after")
    def _in_order(self):
        stated = self.guidance_interval
        intervals: list[Interval] = [*stated.values()] if isinstance(stated, dict) else [stated]
        for low, high in intervals:
            if low > high:
                raise ValueError(f"guidance_interval must begin below its end, and is {[low, high]}")
        return self

    def scale(self, condition: str) -> float:
        return self.guidance.get(condition, 1.0) if isinstance(self.guidance, dict) else self.guidance

    def interval(self, condition: str) -> Interval:
        stated = self.guidance_interval
        return stated.get(condition, (0.0, 1.0)) if isinstance(stated, dict) else stated

    def scale_at(self, fraction: float) -> Callable[[str], float]:
        """Condition to its guidance scale at a fraction of the training timesteps."""

        def scale(condition: str) -> float:
            low, high = self.interval(condition)
            return self.scale(condition) if low <= fraction <= high else min(self.scale(condition), 1.0)

        return scale


class Solved(Guided):
    """How noise is turned to data: by which solver, in how many steps, in what precision."""

    scheduler: Scheduler = "dpmsolver++"
    """the solver, which takes the steps from noise to data"""
    steps: Positive = 20
    """of the solver; more are slower"""
    eta: Fraction = 0.0
    """of ddim: fresh noise at each step, from 0 (none) to 1 (ancestral sampling; Song et al. 2021, eq. 16)"""
    precision: Precision = "fp32"
    """precision of the networks; a CPU without bf16 or int8 uses fp32. int8 applies to large layers of the denoiser, and a GPU refuses it"""

    @model_validator(mode="after")
    def _eta_is_of_ddim(self):
        if self.eta and self.scheduler != "ddim":
            raise ValueError(f"eta is of scheduler: ddim, and scheduler is {self.scheduler}")
        return self
