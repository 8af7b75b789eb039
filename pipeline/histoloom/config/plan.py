"""The section `plan`: what to make, and why."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from histoloom.config.base import ConditionName, Fraction, Natural, Positive, Scale, Section, Size
from histoloom.config.file_names import FileName


class Where(Section):
    """The tiles whose conditions are taken; all that is stated must hold."""

    label: str | None = None
    slide_id: str | None = None
    patient_id: str | None = None
    gene: dict[str, Literal["high", "low"]] = Field({}, description="samples in the gene's upper or lower quarter")
    genotype: dict[str, str] = Field({}, description="marker to state: wt, or an alteration's name")
    cohort: dict[str, str] = Field({}, description="column of train_encoders.cohort to the value that the slide has")
    contains: dict[str, Fraction] = Field({}, description="mask class to the least fraction of the tile")


class Edit(Section):
    """What is changed in a mask; nuclei that are put in are real ones of the train split."""

    swap: dict[str, str] = Field({}, description="mask class to the class that it becomes, or background")
    multiply: dict[str, Annotated[float, Field(ge=0)]] = Field({}, description="mask class to times as many nuclei")
    scatter: bool = Field(False, description="as many nuclei of each class, in a new layout")


class Change(Section):
    """What is changed in the conditions that were taken."""

    label: str | None = None
    caption: str | None = None
    rna: str | None = Field(None, description="key of another expression profile, of the train split")
    genotype: dict[str, str] = Field({}, description="marker to state; not_tested takes a marker out")
    cohort: dict[str, str] = Field({}, description="column of train_encoders.cohort to another value")
    number: dict[str, float] = Field({}, description="column of train_encoders.number to another value")
    mpp: Scale | None = None
    mask: Edit = Edit()
    leave_out: tuple[ConditionName, ...] = Field((), description="conditions that are not given")


class Request(Section):
    """So many tiles, under the conditions of tiles such as these, so changed."""

    renamed: ClassVar[dict[str, str]] = {"pairs": "counterfactual"}
    name: FileName
    tiles: Positive
    where: Where = Where()
    change: Change = Change()
    counterfactual: bool = Field(False, description="make each tile twice with one seed: as it is, and changed")
    purpose: Literal["augment", "evaluate"] = Field(
        "augment", description="evaluate: held-out conditions, never emitted"
    )


class Plan(Section):
    classes: tuple[str, ...] = Field((), description="classes to synthesise; empty means every class in deficit")
    target: Literal["largest", "median", "none"] | Positive = Field(
        "largest", description="train tiles wanted per class; none makes what is requested alone"
    )
    max_per_class: Positive = 256
    overdraw: float = Field(1.3, ge=1, description="made per tile wanted, because filters reject some")
    requests: tuple[Request, ...] = ()
    evaluation_tiles: Natural = Field(0, description="made from held-out conditions; measured, never emitted")
    batch_size: Size = 32
    batches_per_part: Positive = 2
