"""Which keys of params name files, and how these are found from another folder than the study's."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from histoloom.config.base import Section
from histoloom.config.package import root as packaged_models

S = TypeVar("S", bound=Section)
GENERATED = "generated"
"""In place of a file's name: a model makes what the file would hold."""


class Names(Enum):
    """What the text of a key names; the mark stands in the key's type. All are relative to the study's root."""

    FILE = "a file or a folder"
    MODEL = "a model's folder, or a model that is known by its name"
    EXTRACTOR = "the same, where a folder is written with a slash"
    COMMAND = "a command line, of which some words are files"


def placed(section: S, root: Path) -> S:
    """The same section, whose files are found from the working directory. With the root '.' it is the section itself."""
    if root == Path():
        return section
    found = {}
    for key, field in type(section).model_fields.items():
        value, names = getattr(section, key), next((mark for mark in field.metadata if isinstance(mark, Names)), None)
        if names in (Names.MODEL, Names.EXTRACTOR) and value == field.default:
            continue  # 'scratch' or 'train', which is no folder's name
        found[key] = _placed(value, names, root)
    return section.model_copy(update=found)


def model_place(source: str, root: Path) -> str:
    """Where a model's folder is found from the working directory. A packaged model's name, or a hub's, is left as it is."""
    known_by_name = root == Path() or not source or (packaged_models() / source).is_dir()
    return source if known_by_name or not (root / source).is_dir() else str(root / source)


def _placed(value: Any, names: Names | None, root: Path) -> Any:
    if isinstance(value, Section):
        return placed(value, root)
    if isinstance(value, tuple) and any(isinstance(item, Section) for item in value):
        return tuple(_placed(item, names, root) for item in value)
    if isinstance(value, dict) and any(isinstance(item, Section) for item in value.values()):
        return {name: _placed(item, names, root) for name, item in value.items()}
    if not isinstance(value, str) or names is None:
        return value
    if names is Names.FILE:
        return value if value == GENERATED or "://" in value else str(root / value)
    if names is Names.COMMAND:
        return _command_place(value, root)
    return value if names is Names.EXTRACTOR and "/" not in value else model_place(value, root)


def _command_place(command: str, root: Path) -> str:
    """The command, with the place of each word that is a file of the study. A program that is looked up is none."""
    try:
        words = shlex.split(command)
    except ValueError:
        return command  # `validate` says that its quotes don't close
    ours = [(root / word).exists() and bool(number or "/" in word) for number, word in enumerate(words)]
    return shlex.join(str(root / word) if own else word for word, own in zip(words, ours)) if any(ours) else command
