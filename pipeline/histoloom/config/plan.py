"""The section `plan`: what to make, and why."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from histoloom.config.base import ConditionName, Natural, Positive, Scale, Section, Size
from histoloom.config.file_names import FileName
from histoloom.config.program import Program, Where


class Edit(Section):
    """What is changed in a mask; nuclei that are put in are real ones of the train split."""

    swap: dict[str, str] = Field({}, description="mask class to the class that it becomes, or background")
    multiply: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="mask class to a factor of its number of nuclei"
    )
    scatter: bool = Field(False, description="as many nuclei of each class, at new places")


class Change(Section):
    """What is changed in the conditions that were taken."""

    label: str | None = None
    """another label"""
    caption: str | None = None
    """another caption"""
    rna: str | None = Field(None, description="key of another expression profile, of the train split")
    genotype: dict[str, str] = Field({}, description="marker to state; not_tested takes a marker out")
    cohort: dict[str, str] = Field({}, description="column of train_encoders.cohort to another value")
    number: dict[str, float] = Field({}, description="column of train_encoders.number to another value")
    mpp: Scale | None = None
    """another scale, µm/px"""
    mask: Edit = Edit()
    leave_out: tuple[ConditionName, ...] = Field((), description="conditions that are not given")


class Request(Program):
    """A number of tiles to sample: under the conditions of real tiles that `where` selects, as `change` changes them."""

    renamed: ClassVar[dict[str, str]] = {"pairs": "counterfactual"}
    name: FileName
    """name of the request, for rows and reports"""
    tiles: Positive | Literal["all"]
    """how many tiles; all: with purpose: predict, every tile that `where` selects"""
    where: Where = Where()
    change: Change = Change()
    like: Where | None = None
    """other real tiles, whose embeddings are given (condition image): one for each tile, in place of its own"""
    counterfactual: bool = Field(
        False, description="sample each tile twice from one seed: under its conditions as they are, and changed"
    )
    purpose: Literal["augment", "evaluate", "predict"] = "augment"
    """augment: under conditions of the train split; evaluate: under held-out ones, measured and never emitted; predict: run
    on real tiles of any split, results in data/predicted, never emitted"""

    @property
    def selections(self) -> dict[str, Where]:
        """What selects real tiles, by its key."""
        stated = {"where": self.where, "start.where": self.start.where, "like": self.like}
        return {key: where for key, where in stated.items() if where is not None}

    @model_validator(mode="after")
    def _reads_its_splits(self):
        """Tiles to augment are made of train tiles, and those to evaluate of held-out ones."""
        read = {"augment": ("train",), "evaluate": ("val", "test"), "predict": ("train", "val", "test")}[self.purpose]
        for name, where in self.selections.items():
            if where.split is not None and where.split not in read:
                raise ValueError(
                    f"{name}.split is {where.split}, and purpose: {self.purpose} reads {' and '.join(read)} tiles alone: leave it out, or "
                    "set purpose: predict"
                )
        return self

    @model_validator(mode="after")
    def _makes_tiles(self):
        if self.purpose != "predict":
            if self.tiles == "all":
                raise ValueError(f"tiles: all is of purpose: predict, and it is {self.purpose}: state how many")
            if self.reduce.name not in ("each", "best"):
                raise ValueError(f"reduce: {self.reduce.name} makes no tiles to {self.purpose}: set purpose: predict")
        if self.counterfactual and self.like is not None:
            raise ValueError(
                "counterfactual tiles differ in what change states, and like gives both another tile's embedding: leave one out"
            )
        if self.counterfactual and self.reduce.name == "each" and self.samples > 1:
            raise ValueError("counterfactual tiles are made one by one: leave samples out, and raise tiles")
        return self


class Plan(Section):
    classes: tuple[str, ...] = Field(
        (), description="classes to sample; empty means every class with fewer train tiles than `target`"
    )
    target: Literal["largest", "median", "none"] | Positive = "largest"
    """train tiles wanted per class; largest: as many as the largest class has; none: only `requests` are sampled"""
    max_per_class: Positive = 256
    """most tiles that are sampled to fill a class up"""
    overdraw: float = Field(1.3, ge=1, description="tiles sampled for each tile wanted, because filters reject some")
    requests: tuple[Request, ...] = ()
    """tiles that are asked for by name"""
    evaluation_tiles: Natural = Field(0, description="tiles sampled under held-out conditions; measured, never emitted")
    batch_size: Size = 32
    """tiles in a forward pass; fixed, so that results do not depend on the number of workers"""
    batches_per_part: Positive = 2
    """batches that one task of `sample` makes"""
