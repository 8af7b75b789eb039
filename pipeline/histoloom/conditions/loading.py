"""What networks from elsewhere are loaded by: a hub's id is no folder, and files of strangers fail in many ways."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError

from safetensors import SafetensorError

from histoloom.errors import HistoloomError

HUB = "transformers:"
UNLOADABLE = (
    OSError, ValueError, RuntimeError, LookupError, TypeError, AttributeError, ImportError, AssertionError, UnpicklingError,
    SafetensorError,
)  # fmt: skip
"""What libraries raise of files that aren't as they expect: pickles, other networks' settings, broken JSON and weights."""


def hub_id(source: str) -> str:
    """ORG/NAME of `transformers:ORG/NAME`; any other source as it is.

    Raises
    ------
    HistoloomError
        when it is a folder: what is told of a model tells hubs' ids, and no folders.
    """
    name = source.removeprefix(HUB)
    if name != source and Path(name).exists():
        raise HistoloomError(f"'{source}' is a folder, and '{HUB}' stands before a hub's id. Write '{name}' alone.")
    return name
