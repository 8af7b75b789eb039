"""What params name, and where its class lies. A class is imported when it is asked for, and no other with it."""

from __future__ import annotations

import importlib
from typing import Any, Literal

Kind = Literal["target", "target_fit", "backbone", "condition", "condition_fit", "reduce"]
PLACES: dict[Kind, dict[str, str]] = {
    "target": {
        "latents": "histoloom.targets.latents:Latents",
        "pixels": "histoloom.targets.pixels:Pixels",
        "masks": "histoloom.targets.masks:Masks",
        "instances": "histoloom.targets.instances:Instances",
        "vectors": "histoloom.targets.vectors:Vectors",
        "volumes": "histoloom.targets.volumes:Volumes",
    },
    "backbone": {"unet": "histoloom.backbones.unet:UNet", "mlp": "histoloom.backbones.mlp:MLP"},
    "condition": {
        "label": "histoloom.conditions.label:LabelCondition",
        "text": "histoloom.conditions.text:TextCondition",
        "mask": "histoloom.conditions.mask:MaskCondition",
        "rna": "histoloom.conditions.rna:RnaCondition",
        "genotype": "histoloom.conditions.genotype:GenotypeCondition",
        "magnification": "histoloom.conditions.magnification:MagnificationCondition",
        "image": "histoloom.conditions.image:ImageCondition",
        "picture": "histoloom.conditions.picture:PictureCondition",
        "cohort": "histoloom.conditions.cohort:CohortCondition",
        "number": "histoloom.conditions.number:NumberCondition",
    },
    "target_fit": {"latents": "histoloom.training.fit_target:fit_latents"},
    "condition_fit": {
        "text": "histoloom.training.fit_condition:fit_text",
        "rna": "histoloom.training.fit_condition:fit_rna",
    },
    "reduce": {
        "each": "histoloom.sampling.reduce.each:each",
        "mean": "histoloom.sampling.reduce.mean:mean",
        "vote": "histoloom.sampling.reduce.masks:vote",
        "staple": "histoloom.sampling.reduce.masks:staple",
        "best": "histoloom.sampling.reduce.best:best",
        "residual": "histoloom.sampling.reduce.residual:residual",
        "features": "histoloom.sampling.reduce.features:features",
    },
}
"""Kind, to name, to module:class. Targets and conditions that train a network have a function of their name that fits them; the others fit
themselves (`Target.fit`, `Condition.fit`)."""


def registered(kind: Kind, name: str) -> Any:
    """The class of that name.

    Raises
    ------
    KeyError
        for a name that isn't registered; params are checked for it.
    """
    module, _, attribute = PLACES[kind][name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def module_of(kind: Kind, name: str) -> str:
    """The module that holds it, as 'histoloom.targets.pixels'."""
    return PLACES[kind][name].partition(":")[0]
