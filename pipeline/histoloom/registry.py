"""What params name, and where its class lies. A class is imported when it is asked for, and no other with it."""

from __future__ import annotations

import importlib
from typing import Any, Literal

Kind = Literal["target", "backbone", "condition", "fit", "learner"]
PLACES: dict[Kind, dict[str, str]] = {
    "target": {"latents": "histoloom.targets.latents:Latents", "pixels": "histoloom.targets.pixels:Pixels"},
    "backbone": {"unet": "histoloom.backbones.unet:UNet"},
    "condition": {
        "label": "histoloom.conditions.label:LabelCondition",
        "text": "histoloom.conditions.text:TextCondition",
        "mask": "histoloom.conditions.mask:MaskCondition",
        "rna": "histoloom.conditions.rna:RnaCondition",
        "genotype": "histoloom.conditions.genotype:GenotypeCondition",
        "magnification": "histoloom.conditions.magnification:MagnificationCondition",
        "image": "histoloom.conditions.image:ImageCondition",
        "cohort": "histoloom.conditions.cohort:CohortCondition",
        "number": "histoloom.conditions.number:NumberCondition",
    },
    "fit": {"text": "histoloom.training.fits:fit_text", "rna": "histoloom.training.fits:fit_rna"},
    "learner": {
        "efficientnet-lite0": "histoloom.learners.classifier:EfficientNetLite",
        "timm:": "histoloom.learners.classifier:TimmClassifier",
        "unet": "histoloom.learners.unet:UNet",
        "unet-imagenet": "histoloom.learners.unet:UNetImageNet",
        "denoiser": "histoloom.learners.denoiser:DenoiserFeatures",
        "command": "histoloom.learners.command:Command",
    },
}
"""Kind, to name, to module:class. `fit` is of conditions that train a network; the others fit themselves (`Condition.fit`).
A name that ends in a colon stands for all that begin with it."""

LOADS: dict[tuple[Kind, str], tuple[Kind, ...]] = {("learner", "denoiser"): ("target", "backbone", "condition")}
"""Kind and name to the kinds of pieces that it loads in its turn."""


def entry_of(kind: Kind, name: str) -> str | None:
    """The name, or the beginning of it, under which it is registered; None where it is not."""
    places, family = PLACES[kind], f"{name.partition(':')[0]}:"
    if family in places and len(name) > len(family):
        return family
    return name if name in places and not name.endswith(":") else None


def registered(kind: Kind, name: str) -> Any:
    """The class of that name.

    Raises
    ------
    KeyError
        for a name that isn't registered; params are checked for it.
    """
    module, _, attribute = _place(kind, name).partition(":")
    return getattr(importlib.import_module(module), attribute)


def module_of(kind: Kind, name: str) -> str:
    """The module that holds it, as 'histoloom.targets.pixels'."""
    return _place(kind, name).partition(":")[0]


def _place(kind: Kind, name: str) -> str:
    if (entry := entry_of(kind, name)) is None:
        raise KeyError(name)
    return PLACES[kind][entry]
