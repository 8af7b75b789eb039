"""params.yaml as a whole, its sections checked against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from histoloom.config.base import Guided, Section
from histoloom.config.emit import Emit
from histoloom.config.encode import Encode
from histoloom.config.evaluate import Evaluate
from histoloom.config.file_keys import GENERATED
from histoloom.config.file_names import FileName, alike
from histoloom.config.filter import Filter
from histoloom.config.models import TAKEN, ModelParams, inherited
from histoloom.config.plan import Plan
from histoloom.config.report import Report
from histoloom.config.requests import NO_PICTURES, check_request
from histoloom.config.sample import Sample
from histoloom.config.sample_slides import SampleSlides
from histoloom.config.tile import Tile
from histoloom.config.train_autoencoder import TrainAutoencoder
from histoloom.config.train_denoiser import TrainDenoiser
from histoloom.config.train_encoders import TrainEncoders
from histoloom.config.train_filters import TrainFilters
from histoloom.config.uplift import Uplift
from histoloom.registry import PLACES


def _refuse_alike(where: str, names: Sequence[str]) -> None:
    if found := alike(names):
        if found[0] == found[1]:
            raise ValueError(f"{where} names {found[0]!r} twice")
        raise ValueError(f"{where} names {found[0]!r} and {found[1]!r}, which differ by case or Unicode form alone")


ExtensionKind = Literal["condition", "target", "backbone", "reduce", "learner"]
ExtensionPlace = Annotated[str, Field(pattern=r"\.py:[A-Za-z_]\w*$")]


class Params(Section):
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """every random draw follows from it"""
    tile: Tile
    train_encoders: TrainEncoders = TrainEncoders()
    train_autoencoder: TrainAutoencoder = TrainAutoencoder()
    encode: Encode = Encode()
    train_denoiser: TrainDenoiser = TrainDenoiser()
    plan: Plan = Plan()
    sample: Sample = Sample()
    sample_slides: SampleSlides = SampleSlides()
    train_filters: TrainFilters = TrainFilters()
    filter: Filter = Filter()
    emit: Emit = Emit()
    evaluate: Evaluate = Evaluate()
    uplift: Uplift = Uplift()
    report: Report = Report()
    models: dict[FileName, ModelParams] = Field({})
    """several models in one study: your name for each, with the keys in which it differs from the sections below"""

    extensions: dict[ExtensionKind, dict[FileName, ExtensionPlace]] = Field({})
    """classes of your own, as {KIND: {NAME: FILE.py:CLASS}}"""

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, written: Any) -> Any:
        if not isinstance(written, dict) or not isinstance(written.get("models"), dict):
            return written
        return written | {"models": {name: inherited(written, name) for name in written["models"]}}

    def of(self, name: str) -> Params:
        """The params of one of several models, as those of a study that has no other."""
        own = {key: getattr(self.models[name], key) for key in ModelParams.model_fields}
        weaves = name == (self.sample.chain or [*self.models])[-1]
        requests = tuple(request.model_copy(update={"chain": ()}) for request in self.plan.requests)
        alone = {"models": {}, "plan": self.plan.model_copy(update={"requests": requests})}
        return self.model_copy(update=own | alone | ({} if weaves else {"sample_slides": SampleSlides()}))

    @property
    def links(self) -> dict[str, Params]:
        """The models that are run one after another, by name; one without a name where there are no others."""
        names = self.sample.chain or tuple(self.models)
        return {name: self.of(name) for name in names} or {"": self}

    def chains(self) -> dict[tuple[str, ...], dict[str, Params]]:
        """Each chain of models that is run, that of `sample` first, with what `links` gives of it."""
        found = {request.chain or self.sample.chain for request in self.plan.requests}
        chains = dict.fromkeys([self.sample.chain, *sorted(found)])
        return {chain: {name: self.of(name) for name in chain} if chain else self.links for chain in chains}

    @property
    def run_models(self) -> dict[str, Params]:
        """Every model that any chain runs, by name."""
        return {name: link for links in self.chains().values() for name, link in links.items()}

    @property
    def last(self) -> Params:
        """The params of the model that makes what the study emits."""
        return [*self.links.values()][-1]

    @property
    def model_of_masks(self) -> Params | None:
        """The params of the model in `sample.chain` before the last, if it makes masks."""
        before = [*self.links.values()][-2:-1]
        return before[0] if before and before[0].train_denoiser.target.name in ("masks", "instances") else None

    @property
    def conditions(self) -> tuple[str, ...]:
        """What any model that is run is told, or diffuses."""
        return tuple(dict.fromkeys(name for link in self.run_models.values() for name in link.train_denoiser.encoded))

    @model_validator(mode="after")
    def _agree(self):
        if self.tile.stride_px > self.tile.tile_px * 16:
            raise ValueError("tile.stride_px is more than 16 tiles: most of the slide would be skipped")
        for kind, names in self.extensions.items():
            if taken := sorted({*names} & {*PLACES[kind]}):
                raise ValueError(f"extensions.{kind}: {taken} are names of histoloom's own; name them otherwise")
        if "coco" in self.emit.formats and not self.tile.masks.classes:
            raise ValueError("emit.formats names coco, which holds masks: state them (tile.masks), or take coco out")
        self._check_models()
        for where, named in (("tile.labels", self.tile.labels), ("tile.masks", self.tile.masks), ("plan", self.plan)):
            _refuse_alike(f"{where}.classes", named.classes)
        if "evaluate" in self.tile.labels.classes:
            raise ValueError("tile.labels.classes names 'evaluate', which the plan calls tiles made to be measured")
        if unknown := set(self.plan.classes) - set(self.tile.labels.classes):
            raise ValueError(f"plan.classes names {sorted(unknown)}, which tile.labels.classes does not")
        self._check_requests()
        self._check_slides()
        return self

    def _check_models(self) -> None:
        if not self.models:
            if self.sample.chain:
                raise ValueError("sample.chain names models, and the section models states none")
            self._check_model()
        elif unknown := sorted({*self.sample.chain} - {*self.models}):
            raise ValueError(f"sample.chain names {unknown}, which models does not")
        elif not self.sample.chain and len(self.models) > 1:
            raise ValueError("models states several: name in sample.chain those that are run, in their order")
        elif taken := sorted({*self.models} & {*TAKEN}):
            raise ValueError(f"models: {taken} are names of other folders; name them otherwise")
        for name in self.models:
            try:
                self.of(name)._check_model()
            except ValueError as error:
                raise ValueError(f"models.{name}: {error}") from None

    def _check_model(self) -> None:
        if self.tile.tile_px % self.factor:
            raise ValueError(f"tile.tile_px must be a multiple of {self._factor_key}")
        if "picture" in self.train_denoiser.conditions and self.tile.tile_px % self.train_encoders.picture.factor:
            raise ValueError("tile.tile_px must be a multiple of train_encoders.picture.factor")
        if self.factor % self.encode.mask_detail:
            raise ValueError(f"encode.mask_detail must divide {self._factor_key}, which is {self.factor}")
        self._check_conditions()

    @property
    def factor(self) -> int:
        """Pixels to a pixel of what is diffused, along a side."""
        config = self.train_denoiser
        return self.train_autoencoder.down_factor if config.target.name == "latents" else config.target.factor

    @property
    def _factor_key(self) -> str:
        latents = self.train_denoiser.target.name == "latents"
        return "train_autoencoder.down_factor" if latents else "train_denoiser.target.factor"

    def _check_slides(self) -> None:
        slides, names, masks = self.sample_slides.slides, {*self.last.train_denoiser.conditions}, self.model_of_masks
        _refuse_alike("sample_slides.slides", [slide.name for slide in slides])
        for slide in slides:
            where = f"sample_slides.slides, {slide.name!r}"
            stated: dict[str, object] = {"label": slide.label, "text": slide.caption, "rna": slide.rna}
            stated |= {"genotype": slide.genotype, "cohort": slide.cohort or None, "number": slide.number or None}
            told = names
            if slide.mask == GENERATED:
                if masks is None or "mask" not in names:
                    raise ValueError(
                        f"{where}: mask is generated, and sample.chain has no model of masks before one that is told masks"
                    )
                if self.last.encode.edges:
                    raise ValueError(
                        f"{where}: a generated mask has no outlines of nuclei, which encode.edges gives the model"
                    )
                told = names | {*masks.train_denoiser.conditions}
            for name in [n for n, value in stated.items() if value is not None and n not in told]:
                raise ValueError(f"{where}: '{name}' is not among train_denoiser.conditions")
            if slide.label not in (None, *self.tile.labels.classes):
                raise ValueError(f"{where}: {slide.label!r} is none of tile.labels.classes")
            factor = self.last.factor
            if slide.image and (slide.image.x_px % factor or slide.image.y_px % factor):
                multiples = f"multiples of {factor} px, the side of a latent pixel"
                raise ValueError(f"{where}: image.x_px and image.y_px are to be {multiples}")
            if (
                slide.image
                and slide.image.inverted
                and (self.sample_slides.scheduler != "ddim" or self.sample_slides.eta)
            ):
                raise ValueError(
                    f"{where}: inversion goes back over steps of ddim: set sample_slides: {{scheduler: ddim, eta: 0}}"
                )
            if slide.mask and not self.tile.masks.classes:
                raise ValueError(f"{where}: it has a mask, and tile.masks names no classes")

    def _check_conditions(self) -> None:
        names = self.train_denoiser.conditions
        if len(set(names)) < len(names):
            raise ValueError("train_denoiser.conditions names a condition twice")
        for name in ("rna", "genotype"):
            key = getattr(self.train_encoders, name).key
            if name in names and key == "spot_id" and self.tile.labels.source != "spots":
                raise ValueError(f"train_encoders.{name}.key is spot_id, and tile.labels.source is not spots")
        if self.tile.masks.source == "none":
            if "mask" in names:
                raise ValueError("train_denoiser.conditions has mask, and tile.masks.source is none")
            if (target := self.train_denoiser.target.name) in ("masks", "instances"):
                raise ValueError(f"train_denoiser.target is {target}, and tile.masks.source is none")
        if over := [n for n, level in self.sample.augment.items() if level > self.train_denoiser.augment.get(n, 0)]:
            raise ValueError(f"sample.augment adds more noise to {over[0]} than train_denoiser.augment does")
        if self.sample.oversample and self.train_denoiser.target.name != "masks":
            raise ValueError("sample.oversample is of masks that a model makes (train_denoiser.target: masks)")
        if unknown := [n for n in self.sample.oversample if n not in self.tile.masks.classes]:
            raise ValueError(f"sample.oversample names {unknown[0]!r}, which tile.masks.classes does not")
        self._check_classifiers()
        default = Guided.model_fields["guidance_interval"].default
        by_condition: dict[str, object] = {"train_denoiser.drop": self.train_denoiser.drop}
        for section in ("sample", "sample_slides"):
            guided = getattr(self, section)
            by_condition[f"{section}.guidance"] = guided.guidance
            if guided.guidance_interval != default:
                by_condition[f"{section}.guidance_interval"] = guided.guidance_interval
        for key, stated in by_condition.items():
            if isinstance(stated, dict) and (extra := set(stated) - set(names)):
                raise ValueError(f"{key} names {sorted(extra)}, which train_denoiser.conditions does not")

    def _check_classifiers(self) -> None:
        pushed, denoiser = self.sample.classifier_guidance, self.train_denoiser
        if "text" in pushed and not ("text" in denoiser.conditions and self.train_encoders.text.noised):
            raise ValueError(
                "sample.classifier_guidance by text needs text among train_denoiser.conditions, and train_encoders.text.noised: true"
            )
        if "text" in pushed and denoiser.target.name != "pixels":
            raise ValueError("sample.classifier_guidance by text pushes pixels, and train_denoiser.target is another")
        if "label" in pushed and denoiser.classifier is None:
            raise ValueError("sample.classifier_guidance by label needs train_denoiser.classifier")

    def _check_requests(self) -> None:
        requests = self.plan.requests
        _refuse_alike("plan.requests", [request.name for request in requests])
        if taken := {r.name for r in requests} & {"evaluate", *self.tile.labels.classes}:
            raise ValueError(f"plan.requests: {sorted(taken)} are names of classes; name the requests otherwise")
        made = self.last.train_denoiser.target.name
        wanted = [r.name for r in requests if r.purpose != "predict"] or ["plan.target"] * (self.plan.target != "none")
        if made in NO_PICTURES and (wanted or self.plan.evaluation_tiles):
            raise ValueError(
                f"train_denoiser.target: the model that runs last makes {made}, and no pictures: set plan.target: none and "
                "purpose: predict for every request, or name in sample.chain a model that paints them"
            )
        for request in requests:
            try:
                check_request(request, self)
            except ValueError as error:
                raise ValueError(f"plan.requests, {request.name!r}: {error}") from None
