"""The requests of a plan, each checked against the rest of params.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from histoloom.config.plan import Change, Request
from histoloom.config.sample import Sample
from histoloom.config.tile import Tile
from histoloom.config.train_denoiser import TrainDenoiser
from histoloom.config.train_encoders import TrainEncoders

NO_PICTURES = ("masks", "instances", "vectors", "volumes")
"""Targets of models that make none."""
_NO_REGIONS = ("vectors", "volumes")
"""Targets of which no region of a tile can be made anew."""


class Stated(Protocol):
    """What a request is checked against: params.yaml, or what it says of one model.

    conditions : those of any model that is run. last : the model that runs last. chains : names of models, in order, to these models.
    """

    @property
    def tile(self) -> Tile: ...
    @property
    def train_encoders(self) -> TrainEncoders: ...
    @property
    def train_denoiser(self) -> TrainDenoiser: ...
    @property
    def sample(self) -> Sample: ...
    @property
    def models(self) -> Mapping[str, object]: ...
    @property
    def conditions(self) -> tuple[str, ...]: ...
    @property
    def last(self) -> Stated: ...
    def chains(self) -> Mapping[tuple[str, ...], Mapping[str, Stated]]: ...


def check_request(request: Request, params: Stated) -> None:
    """Whether the study can do what a request asks.

    Raises
    ------
    ValueError
        when it can't.
    """
    change, names, mask = request.change, params.conditions, request.change.mask
    selections = [*request.selections.values()]
    needs = {
        "mask": bool(mask.swap or mask.multiply or mask.scatter),
        "rna": change.rna is not None,
        "genotype": bool(change.genotype) or any(of.genotype for of in selections),
        "text": change.caption is not None,
        "magnification": change.mpp is not None,
        "cohort": bool(change.cohort) or any(of.cohort for of in selections),
        "number": bool(change.number),
    }
    asked = [name for name, needed in needs.items() if needed] + sorted(change.leave_out)
    for name in (name for name in asked if name not in names):
        raise ValueError(f"'{name}' is not among train_denoiser.conditions")
    columns = {"cohort": {*change.cohort}.union(*(of.cohort for of in selections)), "number": {*change.number}}
    for name, named in columns.items():
        if others := sorted(named - {*getattr(params.train_encoders, name).columns}):
            raise ValueError(f"{others} are no train_encoders.{name}.columns")
    if unknown := sorted({*request.chain} - {*params.models}):
        raise ValueError(f"chain names {unknown}, which models does not")
    if request.like is not None:
        _check_like(request, params)
    _check_remake(request, params)
    if request.start.inverted and params.last.sample.scheduler not in ("ddim", "euler"):
        raise ValueError("inversion goes back over steps of ddim or euler: set sample.scheduler to one of them")
    if request.start.inverted and params.last.sample.eta:
        raise ValueError("a tile that is inverted comes back without fresh noise alone: set sample.eta to 0")
    shown = {name for of in selections for name in of.contains}
    masks = {*shown, *mask.swap, *mask.swap.values(), *mask.multiply, *request.remake.classes}
    if extra := masks - {"background", *params.tile.masks.classes}:
        raise ValueError(f"{sorted(extra)} are no tile.masks.classes")
    labels = {label for label in (change.label, *(of.label for of in selections)) if label is not None}
    if extra := labels - {*params.tile.labels.classes}:
        raise ValueError(f"{sorted(extra)} are no tile.labels.classes")
    if request.counterfactual and change == Change():
        raise ValueError("counterfactual tiles differ in what 'change' states, and it is empty")


def _check_like(request: Request, params: Stated) -> None:
    made, read = set[str | None](), set[str]()
    for link in params.chains()[request.chain or params.sample.chain].values():
        target = link.train_denoiser.target
        read |= {*link.train_denoiser.conditions} - made
        made |= {target.condition} if target.name in NO_PICTURES else {"image", "picture"}
    if "image" not in read:
        raise ValueError(
            "like gives the embedding of another tile, and no model that it runs is given one of a real tile: 'image' is not among their "
            "train_denoiser.conditions, or a model before makes it"
        )
    if "picture" in read:
        raise ValueError(
            "like gives the embedding of another tile, and the condition picture shows the tile itself: take one out"
        )


def _check_remake(request: Request, params: Stated) -> None:
    made = [*params.chains()[request.chain or params.sample.chain].values()][-1].train_denoiser.target.name
    if request.remake.any and made in _NO_REGIONS:
        raise ValueError(
            f"remake makes a region of a tile anew, and the model that runs last makes {made}: leave remake out"
        )
    if request.remake.blend_um and made in NO_PICTURES:
        raise ValueError(
            f"remake.blend_um blends pictures, and the model that runs last makes {made}: leave blend_um out"
        )
