"""A diffusion model, that is its target, denoiser and encoders: loaded once a process, and asked for data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd

from histoloom.backbones.backbone import Backbone
from histoloom.backbones.denoiser import load_denoiser
from histoloom.backbones.precision import native
from histoloom.conditions.batch import Conditions
from histoloom.conditions.condition import Arrays
from histoloom.conditions.encode import ConditionSet, facts_of, load_conditions, null
from histoloom.config import Sample, SampleSlides
from histoloom.config.denoiser_record import CLASSIFIER, ConditionSpec, DenoiserRecord
from histoloom.data.commit import digest
from histoloom.data.lineage import Lineage, model_sha256, read_lineage
from histoloom.errors import HistoloomError
from histoloom.process.guidance import ScaleAt
from histoloom.process.predictor import Predictor
from histoloom.process.process import Process
from histoloom.registry import registered
from histoloom.sampling.agreement import Agreement, LabelAgreement, load_label_agreement
from histoloom.sampling.text_agreement import TextAgreement, load_text_agreement
from histoloom.targets.target import Raster, Target

_MODELS = ("autoencoder", "denoiser", "encoders")


@dataclass(frozen=True)
class DiffusionModel:
    """A loaded target, denoiser and conditions that were trained together, from one folder."""

    target: Target
    network: Backbone
    conditions: ConditionSet
    record: DenoiserRecord
    device: str
    folder: Path

    @property
    def specs(self) -> tuple[ConditionSpec, ...]:
        return self.record.conditions

    @property
    def raster(self) -> Raster:
        """Its target, which must be one of pictures.

        Raises
        ------
        HistoloomError
            when it is another.
        """
        return self.raster_of("image")

    def raster_of(self, array: str) -> Raster:
        """Its target, which must be one of places and be decoded to `image` or `mask`, where a slide is to be woven.

        Raises
        ------
        HistoloomError
            when it is another.
        """
        if not isinstance(self.target, Raster) or array not in self.target.makes:
            wanted = "pictures" if array == "image" else f"{array}s"
            raise HistoloomError(
                f"The model makes {self.record.training.target}, and {wanted} are to be woven: take out sample_slides.slides."
            )
        return self.target

    def agreement(self, condition: str) -> Agreement:
        """What a classifier of noised data says of a condition: of text a CLIP, of label `train_denoiser.classifier`.

        Raises
        ------
        HistoloomError
            of a model that has none; of text, also where something else than pixels is diffused.
        """
        return self._text_agreement if condition == "text" else self._label_agreement

    @cached_property
    def _label_agreement(self) -> LabelAgreement:
        if not (folder := self.folder / "denoiser" / CLASSIFIER).is_dir():
            raise HistoloomError(
                f"{self.folder} has no classifier of noised tiles: take label out of sample.classifier_guidance, or train one "
                "(train_denoiser.classifier)."
            )
        return load_label_agreement(folder, self.device)

    @cached_property
    def _text_agreement(self) -> TextAgreement:
        noised = facts_of(self.folder / "encoders").get("text", {}).get("noised")
        if not noised or self.record.training.target != "pixels":
            raise HistoloomError(
                f"{self.folder} has no CLIP of noised tiles, or diffuses no pixels: take text out of sample.classifier_guidance, or train with "
                "target: pixels and train_encoders.text.noised: true."
            )
        return load_text_agreement(self.folder / "encoders/text", self.device)

    @cached_property
    def process(self) -> Process:
        return Process.of(self.record.training)

    def predictor(self, scale_at: ScaleAt) -> Predictor:
        """The denoiser under this guidance."""
        return Predictor(self.network, self.process, self.specs, scale_at, self.target.bound)

    def nulls(self, height: int, width: int) -> Conditions:
        """The nulls of all conditions, one row, for data of this size."""
        arrays: Arrays = {}
        for spec in (s for s in self.specs if s.shape != "sequence"):
            shape = (spec.size, height, width) if spec.shape == "map" else (spec.size,)
            arrays[spec.name] = np.zeros((1, *shape), np.float32)
        for tower in (c for c in self.conditions.conditions if c.shape == "sequence"):
            arrays |= tower.arrays(pd.DataFrame({"caption": [""]}), no_tiles)
        return null(arrays, self.specs)


def no_tiles(name: str) -> np.ndarray:
    """What reads the tiles of captions, which need none."""
    raise HistoloomError(f"A caption needs no {name} of a tile.")


def load_unconditioned(models: Path, device: str) -> DiffusionModel:
    """A model that is to be run under no condition: of the encoders only a text tower is loaded, which knows the empty caption."""
    network, record = load_denoiser(models / "denoiser", device)
    towers = tuple(spec for spec in record.conditions if spec.shape == "sequence")
    conditions = load_conditions(towers, record.training.px, models / "encoders", device)
    return DiffusionModel(load_target(models, record, device), network, conditions, record, device, models)


@lru_cache(maxsize=4)
def load_diffusion_model(
    models: Path, sha256: str, attention: str, device: str, precision: str = "fp32", *, few_steps: bool = False
) -> DiffusionModel:
    """Load a study's `models` once a process; `sha256` keys the cache, so that new weights are loaded anew."""
    network, record = load_denoiser(models / "denoiser", device, attention, precision, few_steps=few_steps)
    conditions = load_conditions(record.conditions, record.training.px, models / "encoders", device)
    target = load_target(models, record, device, precision)
    return DiffusionModel(target, network, conditions, record, device, models)


def load_target(models: Path, record: DenoiserRecord, device: str, precision: str = "fp32") -> Target:
    """What a denoiser diffuses, from the folder that holds the models."""
    return registered("target", record.training.target).load(models / "autoencoder", device, precision)


def generator_sha256(*models: Path) -> str:
    """The identity of autoencoder, denoiser and encoders together, of one folder or of a chain of them."""
    each = [digest([model_sha256(folder / name) for name in _MODELS]) for folder in models]
    return each[0] if len(each) == 1 else digest(each)


def lineage_of_models(*models: Path) -> Lineage:
    """What autoencoder, denoiser and encoders saw, those of all folders."""
    lineage = Lineage()
    for folder in models:
        for name in _MODELS:
            lineage |= read_lineage(folder / name)
    return lineage


class ConditionGuidance(TypedDict):
    """One entry of a row's `guidance` (data.schema.GUIDANCE)."""

    condition: str
    scale: float
    start: float
    end: float


class SamplingFacts(TypedDict):
    """How tiles were sampled, as their rows state it (data.schema.SYNTHETIC_ROW), but for `window_layout`."""

    scheduler: str
    steps: int
    precision: str
    guidance: list[ConditionGuidance]


def written_guidance(config: Sample | SampleSlides, conditions: tuple[str, ...]) -> list[ConditionGuidance]:
    """Guidance as a tile's row states it: one entry for all conditions where they have the same scale and interval."""
    found = {name: (config.scale(name), *config.interval(name)) for name in conditions}
    if len(set(found.values())) == 1:
        found = {"all": found[conditions[0]]}
    pushes = getattr(config, "classifier_guidance", {})
    found |= {f"{name} classifier": (strength, 0.0, 1.0) for name, strength in pushes.items()}
    return [
        {"condition": name, "scale": scale, "start": start, "end": end} for name, (scale, start, end) in found.items()
    ]


def sampling_facts(config: Sample | SampleSlides, conditions: tuple[str, ...], device: str) -> SamplingFacts:
    return {
        "scheduler": config.scheduler + (f", eta {config.eta:g}" if config.eta else ""),
        "steps": config.steps,
        "precision": native(config.precision, device),
        "guidance": written_guidance(config, conditions),
    }


def check_distilled(record: DenoiserRecord | None, config: Sample | SampleSlides, section: str) -> None:
    """Refuse to step a distilled denoiser otherwise than it was distilled for.

    Guidance is inside where the conditions are those of the teacher; a denoiser that was adapted to others may be guided.
    """
    if record is None:
        return
    steps, inside = record.training.distilled, record.training.guidance_inside
    if steps and (
        (config.scheduler, config.steps, config.eta) != ("ddim", steps, 0) or (inside and config.guidance != 1)
    ):
        raise HistoloomError(
            f"The denoiser was distilled to {steps} steps{', with guidance inside' if inside else ''}. Set {section}: "
            f"{{scheduler: ddim, steps: {steps}{', guidance: 1' if inside else ''}}}."
        )
