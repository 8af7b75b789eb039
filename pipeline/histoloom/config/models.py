"""Several models in a study: what each states otherwise than the study does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from histoloom.config.base import Section
from histoloom.config.encode import Encode
from histoloom.config.sample import Sample
from histoloom.config.train_autoencoder import TrainAutoencoder
from histoloom.config.train_denoiser import TrainDenoiser
from histoloom.config.train_encoders import TrainEncoders

TAKEN = ("filters", "encoders", "autoencoder", "denoiser")
"""Folders beside those of models."""


class ModelParams(Section):
    """One of several models. A key that it leaves out is as the study states it."""

    train_encoders: TrainEncoders = TrainEncoders()
    train_autoencoder: TrainAutoencoder = TrainAutoencoder()
    encode: Encode = Encode()
    train_denoiser: TrainDenoiser = TrainDenoiser()
    sample: Sample = Sample()


def inherited(written: Mapping[str, Any], name: str) -> Any:
    """What params say of a model, its own keys over the study's."""
    own = written["models"][name]
    if own is not None and not isinstance(own, Mapping):
        return own
    study = {section: written.get(section) for section in ModelParams.model_fields}
    if isinstance(study["sample"], Mapping):
        study["sample"] = {key: value for key, value in study["sample"].items() if key != "chain"}
    return merged({section: value for section, value in study.items() if value is not None}, own or {})


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings joined; where both have a key, mappings are joined again, and of anything else `over` counts."""
    out = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else value
    return out
