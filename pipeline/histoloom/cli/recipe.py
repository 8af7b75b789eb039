"""Recipes: what they write over a study's params, and what a stranger's brings along that may run code or leave the study."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from types import NoneType
from typing import Any

import click
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from histoloom.errors import HistoloomError
from histoloom.progress import console

COMMANDS = (("tile", "summarise"), ("uplift", "command"))
"""Keys of params.yaml whose value is run; so are the files that `extensions` names."""
_DEEPEST = 12
_WORDS = {"caption", "classes", "label", "licence", "name", "title"}
"""Last parts of keys whose value is never a path."""


def read_recipes(names: tuple[str, ...], packaged: Path, *, trust: bool) -> list[dict]:
    """The recipes' overlays, of `packaged` by name or of files, in their order.

    Parameters
    ----------
    trust : take what files bring without asking.

    Raises
    ------
    HistoloomError
        when one isn't there or is no mapping, or brings commands or paths that leave the study and nobody confirms them.
    """
    overlays = []
    for name in names:
        path = Path(name) if Path(name).suffix else packaged / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(sorted(p.stem for p in packaged.glob("*.yaml")))
            raise HistoloomError(f"There is no recipe '{name}'. There are: {known}; or name a file.")
        overlay = _read(path)
        if path.resolve().parent != packaged.resolve():
            _confirm(name, list(brought(overlay)), trust=trust)
        overlays.append(overlay)
    return overlays


def _read(path: Path) -> dict:
    try:
        overlay = YAML(typ="safe").load(path.read_text(encoding="utf-8-sig"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise HistoloomError(f"The recipe {path} is not valid YAML: {error}") from error
    if not isinstance(overlay or {}, dict):
        raise HistoloomError(f"The recipe {path} is no mapping: write sections of params.yaml, such as 'tile:'.")
    for problem in _not_plain(overlay):
        raise HistoloomError(f"The recipe {path}: {problem}.")
    return overlay or {}


def _not_plain(node: Any, key: tuple[str, ...] = (), above: tuple[int, ...] = ()) -> Iterator[str]:
    """What of a recipe is no text, number, true, false or null in lists and mappings: tags bring bytes, sets, dates."""
    where = ".".join(key) or "it"
    if id(node) in above:
        yield f"{where} refers to itself: write out what is meant"
    elif len(above) > _DEEPEST:
        yield f"{where} lies deeper than {_DEEPEST} levels: params have no such depth"
    elif type(node) is dict:
        for name, value in node.items():
            yield from _not_plain(name, (*key, str(name))) if type(name) is not str else ()
            yield from _not_plain(value, (*key, str(name)), (*above, id(node)))
    elif type(node) is list:
        for value in node:
            yield from _not_plain(value, key, (*above, id(node)))
    elif type(node) not in (str, int, float, bool, NoneType):
        yield f"{where} is a {type(node).__name__}: write plain text (in quotes, where it looks like a date), without a tag"


def brought(overlay: dict) -> Iterator[str]:
    """What of a recipe runs, or leads out of the study, a line each."""
    for key, value in _values(overlay):
        if key in COMMANDS or key[:1] == ("extensions",):
            yield f"{'.'.join(key)} runs: {value!r}"
        elif isinstance(value, str) and key[-1] not in _WORDS and _leaves(value):
            yield f"{'.'.join(key)} leads out of the study: {value!r}"


def _values(node: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is none of None, a mapping or a list, with its keys; a command's is taken whole."""
    if node is None:
        return
    if isinstance(node, dict) and key not in COMMANDS:
        for name, value in node.items():
            yield from _values(value, (*key, str(name)))
    elif isinstance(node, (list, tuple)) and key not in COMMANDS:
        for value in node:
            yield from _values(value, key)
    else:
        yield key, node


def _leaves(value: str) -> bool:
    """Whether a text, read as a path, is absolute or climbs out; so read after a colon too, as in timm:local-dir:/x and s3://x."""
    paths = [PurePosixPath(part.strip()) for part in (value, *value.split(":")[1:])]
    return any(path.is_absolute() or ".." in path.parts or path.parts[:1] == ("~",) for path in paths)


def _confirm(name: str, lines: list[str], *, trust: bool) -> None:
    if not lines:
        return
    console.print(f"The recipe '{name}' brings what was not written here:", markup=False)
    for line in lines:
        console.print(f"- {line}", markup=False)
    if trust:
        return
    if not _at_a_terminal():
        raise HistoloomError(
            f"The recipe '{name}' runs commands or leads out of the study, and nobody is there to confirm it. Read it; then add "
            "--trust-recipe."
        )
    if not click.confirm("Make a study with it?"):
        raise HistoloomError("No study was made.")


def _at_a_terminal() -> bool:
    return sys.stdin.isatty()


def merge(base: dict, overlay: dict) -> None:
    """Write what the overlay states into the base: mappings merge, all else replaces; `~` after a key empties it."""
    for key, value in overlay.items():
        if isinstance(value, dict) and value and isinstance(base.get(key), dict):
            merge(base[key], value)
        else:
            base[key] = value
