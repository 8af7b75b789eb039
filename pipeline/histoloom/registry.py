"""What params name, and where its class lies. A class is imported when it is asked for, and no other with it."""

from __future__ import annotations

import importlib
from typing import Any, Literal

Kind = Literal["target", "backbone"]
PLACES: dict[Kind, dict[str, str]] = {
    "target": {"latents": "histoloom.targets.latents:Latents", "pixels": "histoloom.targets.pixels:Pixels"},
    "backbone": {"unet": "histoloom.backbones.unet:UNet"},
}
"""Kind, to name, to module:class."""


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
