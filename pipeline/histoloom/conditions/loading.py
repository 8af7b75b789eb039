"""Loading networks from elsewhere: how a hub's id is told from a folder, and which errors a broken file may raise."""

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
"""What libraries raise when a file is not as they expect: a pickle, another network's settings, broken JSON or weights."""


def hub_id(source: str) -> str:
    """ORG/NAME of `transformers:ORG/NAME`; any other source as it is.

    Raises
    ------
    HistoloomError
        when it is a folder. A model's card quotes hub ids, and may not quote a folder.
    """
    name = source.removeprefix(HUB)
    if name != source and Path(name).exists():
        raise HistoloomError(f"'{source}' is a folder, and '{HUB}' stands before a hub's id. Write '{name}' alone.")
    return name
