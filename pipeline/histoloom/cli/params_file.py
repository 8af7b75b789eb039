"""A study's params.yaml: sections in the order of the stages, keys in that of the reference, each with its own meaning beside it."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from histoloom.cli.reference import choices_of
from histoloom.config import Params, Section
from histoloom.studies.stages import STAGES

_HEAD = "# Every choice that changes a result. What else may be stated, and every default: histoloom params\n"
_WIDE, _BESIDE = 118, 34
_NO_STRINGS = {"yes", "no", "on", "off", "y", "n"}
"""Text that an older reader of YAML takes for a switch."""


def params_text(params: dict) -> str:
    """The file's text. A key that is null, and means nothing by it, is left out."""
    known = Params.written_keys()
    places = [name for name in ("seed", "models", "extensions", *STAGES) if name in known]
    out = [_HEAD]
    for name in sorted(params, key=lambda name: places.index(name) if name in places else len(places)):
        block = [*_lines(name, params[name], known.get(name), 0)]
        about = [f"# {STAGES[name].desc}"] if name in STAGES else []
        out.append("\n".join([*about, *block]) + "\n")
    return "\n".join(out)


def comment_of(field: FieldInfo | None) -> str:
    """What a key means: the names that it takes, where it takes no others; its description, as far as the first full stop if it is long."""
    if field is None:
        return ""
    names, words = choices_of(field.annotation), " ".join((field.description or "").split())
    if len(words) > _WIDE - _BESIDE:
        words = re.split(r"\. (?=[A-Z])", words)[0]
    return "; ".join(part for part in (names, words) if part)


def _lines(key: str, value: Any, field: FieldInfo | None, indent: int) -> Iterator[str]:
    """A key, its comment, and its value, which may be keys of its own."""
    pad, comment, inner = " " * indent, comment_of(field), [*_inner_lines(value, field, indent + 2)]
    first, *rest = [f"{pad}{key}:"] if inner else [f"{pad}{line}" for line in _yaml(key, value)]
    beside = f"{first:{_BESIDE}} # {comment}"
    if not comment:
        yield first
    elif len(beside) <= _WIDE:
        yield beside
    else:
        yield from (f"{pad}# {line}" for line in textwrap.wrap(comment, _WIDE - indent - 2))
        yield first
    yield from inner or rest


def _inner_lines(value: Any, field: FieldInfo | None, indent: int) -> Iterator[str]:
    """The lines of a section, of a mapping of names to sections, or of a list of them; none of any other value."""
    if isinstance(value, list | tuple):
        if (listed := _section_of_item(field)) is not None and all(isinstance(each, dict) and each for each in value):
            for each in value:
                yield from _item_lines(each, listed, indent)
        return
    if not isinstance(value, dict) or not value:
        return
    if (section := _section(field)) is not None:
        yield from _section_lines(value, section, indent)
    elif (several := _section_of_each(field)) is not None:
        for name, each in value.items():
            yield f"{' ' * indent}{name}:" + ("" if each else " {}")
            yield from _section_lines(each or {}, several, indent + 2)


def _section_lines(values: dict, section: type[Section], indent: int) -> Iterator[str]:
    known = section.written_keys()
    places = [*known]
    for key in sorted(values, key=lambda key: places.index(key) if key in places else len(places)):
        if values[key] is not None or key in section.nullable or key not in known:
            yield from _lines(key, values[key], known.get(key), indent)


def _item_lines(values: dict, section: type[Section], indent: int) -> Iterator[str]:
    """A section of a list: its first key stands beside the dash."""
    is_first = True
    for line in _section_lines(values, section, indent + 2):
        if is_first and not line.lstrip().startswith("#"):
            line, is_first = f"{' ' * indent}- {line[indent + 2 :]}", False
        yield line


def _section(field: FieldInfo | None) -> type[Section] | None:
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, Section) else None


def _section_of_each(field: FieldInfo | None) -> type[Section] | None:
    """Of a mapping of names to sections, the section."""
    kind = field.annotation if field else None
    inner = get_args(kind)[1] if get_origin(kind) is dict else None
    return inner if isinstance(inner, type) and issubclass(inner, Section) else None


def _section_of_item(field: FieldInfo | None) -> type[Section] | None:
    """Of a list of sections, the section."""
    kind = field.annotation if field else None
    inner = get_args(kind)[0] if get_origin(kind) is tuple else None
    return inner if isinstance(inner, type) and issubclass(inner, Section) else None


def _yaml(key: str, value: Any) -> list[str]:
    """A key and its value: on one line where it fits, else a line an item."""
    for flow in (True, None, False):
        yaml = YAML()
        yaml.default_flow_style, yaml.width = flow, 10_000
        stream = io.StringIO()
        yaml.dump({key: _quoted(value)}, stream)
        text = stream.getvalue().strip()
        lines = [text[1:-1]] if flow and text.startswith("{") else text.splitlines()
        if flow is False or all(len(line) <= _WIDE for line in lines):
            break
    return lines


def _quoted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _quoted(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_quoted(each) for each in value]
    return DoubleQuotedScalarString(value) if isinstance(value, str) and value.lower() in _NO_STRINGS else value
