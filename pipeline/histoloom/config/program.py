"""How a trained model is run on a row: what a run begins from, how many, what is kept, and what becomes of the samples."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from histoloom.config.base import Distinct, Fraction, Named, Positive, ReduceName, Section
from histoloom.config.file_names import FileName


class Where(Section):
    """Selects real tiles; all that is stated must hold."""

    label: str | None = None
    """tiles with this label"""
    slide_id: str | None = None
    """tiles of this slide"""
    patient_id: str | None = None
    """tiles of this patient"""
    split: Literal["train", "val", "test"] | None = Field(
        None, description="tiles of this split; only with purpose: predict, which reads any split"
    )
    gene: dict[str, Literal["high", "low"]] = Field(
        {}, description="gene to high or low: samples in its upper or lower quarter"
    )
    genotype: dict[str, str] = Field({}, description="marker to state: wt, or an alteration's name")
    cohort: dict[str, str] = Field({}, description="column of train_encoders.cohort to the value that the slide has")
    contains: dict[str, Fraction] = Field(
        {}, description="mask class to the least fraction of the tile that it must cover"
    )


class Start(Section):
    """What a run begins from. `{inverted: true}` is short for `{from: tile, inverted: true}`."""

    model_config = ConfigDict(serialize_by_alias=True)
    source: Literal["noise", "tile"] = Field("noise", alias="from")
    """noise or a real tile: the one whose conditions are taken, unless `start.where` selects others"""
    strength: float = Field(1.0, gt=0, le=1)
    """of tile: how much noise it gets. 0.1 keeps nearly all of it, 1 nothing but what inversion keeps (Meng et al. 2022). Without jump it
    is rounded to whole steps of the solver, one at least"""
    noise: Literal["added", "own"] = "added"
    """added: the tile gets the noise of its strength; own: none is added, and the noise that it has is treated as that of its strength and
    removed (Hu et al. 2022)"""
    jump: bool = False
    """take a single step to the predicted data, in place of all remaining steps"""
    inverted: bool = False
    """begin from the noise that DDIM, run backwards under the tile's own conditions, finds for it (Su et al. 2023)"""
    where: Where | None = None
    """begin from other tiles than those whose conditions are taken: drawn from these"""

    @model_validator(mode="before")
    @classmethod
    def _of_a_tile(cls, data: Any) -> Any:
        of_tile = isinstance(data, dict) and data.get("inverted") and not data.get("from")
        return data | {"from": "tile"} if of_tile else data

    @model_validator(mode="after")
    def _has_a_tile(self):
        own = self.strength < 1 or self.inverted or self.where or self.noise == "own" or self.jump
        if self.source == "noise" and own:
            raise ValueError("strength, noise, jump, inverted and where are of a start from a tile: state from: tile")
        if self.inverted and self.jump:
            raise ValueError("inversion goes back over the steps that jump leaves out: leave one of them out")
        if self.inverted and self.noise == "own":
            raise ValueError("a tile's own noise is removed, and inversion finds another: leave one of them out")
        if self.source == "tile" and self.strength == 1 and not self.inverted:
            raise ValueError(
                "a tile that is noised at strength 1 leaves no trace: state strength, such as 0.4, or inverted: true"
            )
        return self


class Remake(Section):
    """The region of a real tile that is made anew; all else stays to the bit. Regions that are stated are joined.

    Only pictures are blended: classes of a mask have nothing between them.
    """

    classes: Annotated[tuple[str, ...], Distinct] = Field(
        (), description="make the tile anew only where its mask has one of these classes"
    )
    edited: bool = Field(False, description="make the tile anew only where change.mask changed the mask")
    centre_um: float | None = Field(None, gt=0, description="make only a disc in the middle anew, of this diameter")
    grow_um: float = Field(0.0, ge=0, description="how far the region is widened")
    blend_um: float = Field(
        0.0, ge=0, description="width at the region's border, inside it, over which new pixels fade into the tile's own"
    )
    rounds: Positive = 1
    """how often each step is taken, so that the region fits what is kept (Lugmayr et al. 2022)"""

    @property
    def any(self) -> bool:
        return bool(self.classes or self.edited or self.centre_um)

    @model_validator(mode="after")
    def _has_a_region(self):
        if (self.grow_um or self.blend_um or self.rounds > 1) and not self.any:
            raise ValueError("remake names no region: state classes, edited or centre_um")
        return self


class Reduction(Named):
    """What becomes of a row's samples. `reduce: vote` is short for `reduce: {name: vote}`."""

    name: ReduceName = "each"
    """how a row's samples are combined. each: not at all; mean: of pictures, with their standard deviation; vote, staple:
    of masks, with their agreement; best: the one that `by` names; residual: the difference from the tile that it began
    from; features: those of the network"""
    by: Literal["consensus", "input"] = "consensus"
    """of best: nearest to the mean of all samples, or to the tile that they began from"""
    taps: Annotated[tuple[str, ...], Distinct] = ()
    """of features: modules of the network, as torch names them"""
    level: Fraction = Field(0.1, description="of features: the noise that the tile gets, from 0 to 1")

    @model_validator(mode="after")
    def _has_taps(self):
        if (self.name == "features") != bool(self.taps):
            raise ValueError("reduce: features and taps go together")
        return self


class Program(Section):
    """How a trained model is run on a row."""

    start: Start = Start()
    samples: Positive = Field(1, description="samples of each row, each from its own noise")
    reduce: Reduction = Field(Reduction(), description="what becomes of a row's samples: a name, or its keys")
    remake: Remake = Remake()
    chain: Annotated[tuple[FileName, ...], Distinct] = ()
    """of several models, those that are run, in order; unstated, sample.chain"""

    @model_validator(mode="after")
    def _has_noise_to_draw(self):
        if self.start.noise == "own" and self.samples > 1:
            raise ValueError(
                "start.noise: own draws no noise, so that all samples would be the same: leave samples out"
            )
        if self.start.jump and self.remake.rounds > 1:
            raise ValueError("start.jump takes one step, and remake.rounds repeats steps: leave one of them out")
        return self

    @property
    def reads_tile(self) -> bool:
        """Whether it needs the arrays of a real tile, beside its conditions."""
        of_input = self.reduce.name == "best" and self.reduce.by == "input"
        compared = of_input or self.reduce.name in ("residual", "features")
        return compared or self.start.source == "tile" or self.remake.any

    @property
    def text(self) -> str:
        """As a plan's row states it: JSON, empty where a tile is made from noise alone."""
        own = Program(**{name: getattr(self, name) for name in Program.model_fields})
        stated = own.model_dump(mode="json", exclude_defaults=True)
        if own.reduce.name == "each":
            stated.pop("samples", None)  # each has a row of its own
        if "start" in stated:
            stated["start"].pop("where", None)  # the row names the tile
        return json.dumps(stated, sort_keys=True) if stated else ""

    @classmethod
    def read(cls, text: str | None) -> Program:
        return cls(**json.loads(text)) if text else cls()
