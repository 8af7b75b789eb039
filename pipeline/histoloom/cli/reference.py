"""`histoloom params`: every key of params.yaml, from the models that parse it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from histoloom.config import Params, Section
from histoloom.studies.stages import STAGES

_HEAD = """# params.yaml

A study's params.yaml states every choice that changes a result, in a section for each stage. This page lists all keys. `histoloom params` writes it.
How to read it:

- A key that is left out or null has its default, or the value of the package that `train_denoiser.init` names. "Unstated" means left out. An empty section counts as left out.
- Unknown keys are errors.
- `tissue.mpp` is the key `mpp` in the section `tissue`. `sets[].path` is the key `path` of each entry of the list `sets`.
- "of NAME:" means that the key counts only if NAME is chosen, by the key `source`, `name`, `adapt` or the like beside it.
- Names of files are relative to the study's folder.
"""

_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}


def reference() -> str:
    """Markdown: a section per stage, a row per key with its type, default and meaning."""
    lines = [_HEAD]
    lines += _table(_rows(Params, "", own=True))
    for name, field in Params.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            note = " ".join([STAGES[name].desc, *(field.annotation.__doc__ or "").split()])
            lines += [f"## {name}", "", note, "", *_table(_rows(field.annotation, ""))]
    return "\n".join(lines).rstrip() + "\n"


def _rows(model: type[Section], prefix: str, *, own: bool = False) -> Iterator[tuple[str, str, str, str]]:
    for name, field in model.written_keys().items():
        kind, note = field.annotation, " ".join((field.description or "").split())
        if isinstance(kind, type) and issubclass(kind, Section):
            if not own:
                yield from _rows(kind, f"{prefix}{name}.")
            continue
        if get_origin(kind) is dict and isinstance(get_args(kind)[1], type) and issubclass(get_args(kind)[1], Section):
            yield f"{prefix}{name}", "mapping", _default(field), note
            continue
        if len(choices := [*_choices(kind)]) > 1:
            yield f"{prefix}{name}", "name or mapping", _default(field), note
            for choice in choices:
                yield from _keys_of_choice(choice, f"{prefix}{name}.")
            continue
        if inner := [a for a in get_args(kind) if isinstance(a, type) and issubclass(a, Section)]:
            one = field.default is None  # else a list of them
            note = note or " ".join((inner[0].__doc__ or "").split())
            yield f"{prefix}{name}", "mapping or null" if one else "list", _default(field), note
            yield from _rows(inner[0], f"{prefix}{name}{'' if one else '[]'}.")
            continue
        yield f"{prefix}{name}", _type(kind), _default(field), note


def _choices(kind) -> Iterator[type[Section]]:
    """The sections that a union of them chooses from."""
    if get_origin(kind) in (Union, UnionType, Annotated):
        for part in get_args(kind):
            if isinstance(part, type) and issubclass(part, Section):
                yield part
            yield from _choices(part)


def _keys_of_choice(section: type[Section], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    """The keys beside the name, of a section that is chosen by its name."""
    chosen = section.model_fields["name"].default
    for key, kind, default, note in _rows(section, prefix):
        if key != f"{prefix}name":
            yield key, kind, default, f"of {chosen}: {note}"


def choices_of(kind) -> str:
    """The names that a key takes, such as 'flips, turns or none', where it takes no others; else ''."""
    if get_origin(kind) is Annotated:
        return choices_of(get_args(kind)[0])
    names = [str(name) for name in get_args(kind)] if get_origin(kind) is Literal else []
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""


def _type(kind) -> str:
    """A type as a user reads it: choices spelt out, containers by their brackets."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type(inside[0])
    if origin is Literal:
        return " or ".join(map(str, inside))
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_type, inside)))
    if origin is dict:
        return f"mapping of {_type(inside[0])} to {_type(inside[1])}"
    if inside:
        return f"list of {' and '.join(dict.fromkeys(_type(of) for of in inside if of is not Ellipsis))}"
    return _WORDS.get(kind, "name")


def _default(field: FieldInfo) -> str:
    """As params.yaml would state it."""
    return "required" if field.default is PydanticUndefined else f"`{json.dumps(field.default, ensure_ascii=False)}`"


def _table(rows: Iterator[tuple[str, str, str, str]]) -> list[str]:
    return [
        "| key | type | default | meaning |",
        "|---|---|---|---|",
        *(f"| `{key}` | {kind} | {default} | {meaning} |" for key, kind, default, meaning in rows),
        "",
    ]
