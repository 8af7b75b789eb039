"""What params name, and where its class lies: in the package, or in a file of the user's. A class is imported when it is asked for, and
no other with it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from histoloom.errors import HistoloomError

Kind = Literal["target", "target_fit", "backbone", "condition", "condition_fit", "reduce", "learner", "repair"]
PLACES: dict[Kind, dict[str, str]] = {
    "target": {
        "latents": "histoloom.targets.latents:Latents",
        "pixels": "histoloom.targets.pixels:Pixels",
        "masks": "histoloom.targets.masks:Masks",
        "instances": "histoloom.targets.instances:Instances",
        "vectors": "histoloom.targets.vectors:Vectors",
        "volumes": "histoloom.targets.volumes:Volumes",
    },
    "backbone": {
        "unet": "histoloom.backbones.unet:UNet",
        "mlp": "histoloom.backbones.mlp:MLP",
        "r2unet": "histoloom.backbones.r2unet:R2UNet",
        "swin": "histoloom.backbones.swin:Swin",
        "unet3d": "histoloom.backbones.unet3d:UNet3D",
    },
    "condition": {
        "label": "histoloom.conditions.label:LabelCondition",
        "text": "histoloom.conditions.text:TextCondition",
        "mask": "histoloom.conditions.mask:MaskCondition",
        "rna": "histoloom.conditions.rna:RnaCondition",
        "genotype": "histoloom.conditions.genotype:GenotypeCondition",
        "magnification": "histoloom.conditions.magnification:MagnificationCondition",
        "image": "histoloom.conditions.image:ImageCondition",
        "picture": "histoloom.conditions.picture:PictureCondition",
        "partner": "histoloom.conditions.partner:PartnerCondition",
        "cohort": "histoloom.conditions.cohort:CohortCondition",
        "number": "histoloom.conditions.number:NumberCondition",
        "counts": "histoloom.conditions.counts:CountsCondition",
    },
    "target_fit": {"latents": "histoloom.training.fit_target:fit_latents"},
    "condition_fit": {
        "text": "histoloom.training.fit_condition:fit_text",
        "rna": "histoloom.training.fit_condition:fit_rna",
        "image": "histoloom.training.fit_condition:fit_image",
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
    "repair": {"model": "histoloom.sampling.repair:repair_of"},
    "learner": {
        "efficientnet-lite0": "histoloom.learners.classifier:EfficientNetLite",
        "timm:": "histoloom.learners.classifier:TimmClassifier",
        "unet": "histoloom.learners.unet:UNet",
        "unet-imagenet": "histoloom.learners.unet:UNetImageNet",
        "diffusion": "histoloom.learners.diffusion:DiffusionSegmenter",
        "denoiser": "histoloom.learners.denoiser:DenoiserFeatures",
        "command": "histoloom.learners.command:Command",
    },
}
"""Kind, to name, to module:class. Targets and conditions that train a network have a function of their name that fits them; the others fit
themselves (`Target.fit`, `Condition.fit`). A name that ends in a colon stands for all that begin with it."""
LOADS: dict[tuple[Kind, str], tuple[Kind, ...]] = {("learner", "denoiser"): ("target", "backbone", "condition")}
"""Kind and name to the kinds of pieces that it loads in its turn."""

_EXTENSIONS: dict[str, dict[str, str]] = {}


def extensions() -> dict[str, dict[str, str]]:
    """What `extend` was told in this process: kind, to name, to FILE.py:CLASS, whole paths."""
    return {kind: dict(names) for kind, names in _EXTENSIONS.items()}


def extend(stated: Mapping[str, Mapping[str, str]]) -> None:
    """Know pieces from outside the package: kind, to name, to FILE.py:CLASS. A name that was told before stands for the new file.

    A kind that is not in `PLACES` is left out.
    """
    for kind, names in stated.items():
        if kind in PLACES:
            _EXTENSIONS.setdefault(kind, {}).update(names)


def known(kind: Kind) -> tuple[str, ...]:
    """The names of a kind, those from outside too."""
    return (*PLACES[kind], *_EXTENSIONS.get(kind, ()))


def entry_of(kind: Kind, name: str) -> str | None:
    """The name, or the beginning of it, under which it is registered; None where it is not."""
    names, family = known(kind), f"{name.partition(':')[0]}:"
    if family in names and len(name) > len(family):
        return family
    return name if name in names and not name.endswith(":") else None


def registered(kind: Kind, name: str) -> Any:
    """The class of that name.

    Raises
    ------
    HistoloomError
        for a name that nobody registered, or a file from outside that can't be imported or lacks the class.
    """
    module, _, attribute = _place(kind, name).rpartition(":")
    found = _module_of_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
    if not hasattr(found, attribute):
        raise HistoloomError(f"{module} has no '{attribute}', which is to be the {kind} '{name}': mend 'extensions'.")
    return getattr(found, attribute)


def imported_files() -> dict[str, Path]:
    """Name of the module, to its file, of pieces from outside that this process imported. Another needs them before it unpickles such pieces."""
    files = {Path(place.rpartition(":")[0]) for names in _EXTENSIONS.values() for place in names.values()}
    return {name: file for file in sorted(files) if (name := _module_name(file)) in sys.modules}


def import_files(files: Iterable[Path]) -> None:
    """Make modules of these files, as `registered` does."""
    for file in files:
        _module_of_file(file)


def _module_name(path: Path) -> str:
    return f"histoloom_extension_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"


@cache
def _module_of_file(path: Path) -> ModuleType:
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise HistoloomError(f"'extensions' in params.yaml names {path}, and there is no such file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError, OSError) as error:
        del sys.modules[name]
        raise HistoloomError(f"{path}, which 'extensions' names, can't be imported: {error!r}") from error
    return module


def module_of(kind: Kind, name: str) -> str:
    """The module that holds it, as 'histoloom.targets.pixels'; of one from outside its file."""
    return _place(kind, name).rpartition(":")[0]


def _place(kind: Kind, name: str) -> str:
    if (entry := entry_of(kind, name)) is None:
        raise HistoloomError(
            f"'{name}' is no {kind} that is known here; there are {', '.join(known(kind))}. Name the file of your own under "
            "'extensions' in params.yaml."
        )
    return PLACES[kind].get(entry) or _EXTENSIONS[kind][entry]
