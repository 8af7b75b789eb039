"""Params that begin from a package, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from histoloom.config import check_params, load_params
from histoloom.errors import Fault, HistoloomError, Note

BASE = "histoloom-base"
FEWEST = {"train_denoiser": {"init": BASE}}
USABLE = ("magnification", "image", "text", "label")
"""Of its conditions, those that need nothing that a study must name."""


def write(stated: dict, path: Path = Path("params.yaml")) -> Path:
    with path.open("w", encoding="utf-8") as stream:
        YAML(typ="safe").dump(stated, stream)
    return path


def load(stated: dict):
    return load_params(write(stated))


def found(stated: dict) -> list[Fault | Note]:
    return check_params(write(stated))[1]


def refused(stated: dict, key: str, *words: str) -> None:
    """The one fault of params is of this key and says these words; `load_params` says it too."""
    faults = [fault for fault in found(stated) if isinstance(fault, Fault)]
    assert [fault.where for fault in faults] == [f"params.yaml, {key}"]
    assert all(word in faults[0].problem for word in words) and faults[0].remedy
    with pytest.raises(HistoloomError) as error:
        load(stated)
    assert str(faults[0]) in str(error.value)
