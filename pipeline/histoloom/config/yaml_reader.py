"""YAML to a section of params, or to the list of its faults, each with its key and how to mend it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from histoloom.config.base import Section
from histoloom.errors import Fault

S = TypeVar("S", bound=Section)
_LIST = "mend it; `histoloom params` says what each key takes."
_NUMBERS = ("float_parsing", "int_parsing")
_CHOICE = re.compile(r"constrained-.*|int|float|str|.*\[.*\].*")
"""How pydantic names a choice of a union among the keys."""
_DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+\s*")


def read_yaml(path: Path) -> tuple[Any, list[Fault]]:
    """What a YAML file holds, an empty one being an empty mapping; and what keeps it from being read."""
    try:
        return YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}, []
    except FileNotFoundError:
        remedy = "run this in a study's folder, or make one: histoloom init DIR."
        return None, [Fault(str(path), f"{path.name} is missing.", remedy)]
    except UnicodeDecodeError as error:
        return None, [Fault(str(path), f"it is no UTF-8, at byte {error.start}.", "save it as UTF-8.")]
    except OSError as error:
        return None, [Fault(str(path), f"it can't be read ({error.strerror}).", "put a file there.")]
    except YAMLError as error:
        return None, [_no_yaml(path, error)]


def _no_yaml(path: Path, error: YAMLError) -> Fault:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None) or str(error)
    row = mark.line + 1 if isinstance(error, MarkedYAMLError) and mark else None
    if isinstance(error, DuplicateKeyError):
        return Fault(str(path), f"it is not valid YAML ({problem}).", "state each key once.", row)
    remedy = "use blanks in place of tabs." if "\\t" in problem else "mend that line, or the one before it."
    return Fault(str(path), f"it is not valid YAML ({problem}).", remedy, row)


def check_section(found: Any, model: type[S], path: Path) -> tuple[S | None, list[Fault]]:
    """The section that a mapping states, or None and its faults."""
    try:
        return model.model_validate(found), []
    except ValidationError as error:
        faults = [_fault(detail, model, path) for detail in error.errors()]
        return None, list({fault.where: fault for fault in reversed(faults)}.values())[::-1]


def _fault(detail: ErrorDetails, model: type[Section], path: Path) -> Fault:
    """pydantic's error as a fault."""
    keys = [key for key in detail["loc"] if isinstance(key, int) or not _CHOICE.fullmatch(key)]
    where = f"{path}, {'.'.join(map(str, keys)) or '(top)'}"
    if detail["type"] == "missing":
        return Fault(where, "it is missing.", "state it.")
    if detail["type"] == "extra_forbidden":
        return Fault(where, "there is no such key.", _nearest(keys, model))
    if detail["type"] == "value_error":
        return Fault(where, f"{detail['ctx']['error']}.", _LIST)
    shown = "a mapping" if isinstance(detail["input"], dict) else repr(detail["input"])
    return Fault(where, f"it is {shown[:80]}, and {detail['msg'].removeprefix('Input ')}.", _remedy(detail))


def _remedy(detail: ErrorDetails) -> str:
    value = detail["input"]
    if detail["type"] in _NUMBERS and isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value):
        return f"write a decimal point: {value.strip().replace(',', '.')}."
    if detail["type"] == "string_type":
        return f"put it in quotes: '{value}'."
    if detail["type"] == "tuple_type":
        return f"write it as a list: [{value}]."
    return _LIST


def _nearest(keys: list, model: type[Section]) -> str:
    """The key that was meant: one of this section that reads alike, or the same one of another section."""
    name, section = str(keys[-1]), model
    for key in (key for key in keys[:-1] if key in section.written_keys()):
        section = next(_inner(section.written_keys()[key].annotation), section)
    if name in section.renamed:
        return f"it is called '{section.renamed[name]}' now."
    if near := difflib.get_close_matches(name, section.written_keys(), 1):
        return f"did you mean '{near[0]}'?"
    elsewhere = [place for place, known in _sections(model) if name in known.written_keys()]
    listed = "take it out; `histoloom params` lists all keys."
    return f"it is a key of {' and of '.join(elsewhere)}." if elsewhere else listed


def _inner(kind: Any) -> Iterator[type[Section]]:
    """The sections that a field's type holds."""
    if isinstance(kind, type) and issubclass(kind, Section):
        yield kind
    for part in get_args(kind):
        yield from _inner(part)


def _sections(model: type[Section], place: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every section with its place: 'tile', 'tile.labels', ..."""
    for name, known in model.written_keys().items():
        for inner in _inner(known.annotation):
            yield place + name, inner
            yield from _sections(inner, f"{place}{name}.")
