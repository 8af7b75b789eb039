"""For the page of Python: this project's docstrings as griffe reads numpy's. They state no types, since signatures do.

`name : words` becomes a name with its words below it, in the section Parameters, and in a section Attributes where it stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import griffe

_STATED = re.compile(r"^(\w+(?:, \w+)*) : (.+)$")
_UNDERLINE = re.compile(r"^-{3,}$")


class Plain(griffe.Extension):
    """Rewrites each docstring as it is found."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = numpy_style(obj.docstring.value)


def numpy_style(text: str) -> str:
    return "\n".join(_lines(text.splitlines()))


def _lines(lines: list[str]) -> Iterator[str]:
    in_section, in_list, blank = "", False, False
    for number, line in enumerate(lines):
        if _UNDERLINE.match("".join(lines[number + 1 : number + 2])):
            in_section, in_list = line, False
        stated = _STATED.match(line)
        if stated and blank and not in_section and not in_list:
            yield from ("Attributes", "----------")
            in_list = True
        if stated and (in_list or in_section == "Parameters"):
            yield from (stated[1], f"    {stated[2]}")
        elif in_list and not in_section and line.strip() and not line.startswith(" "):
            yield f"    {line}"  # goes on from the line before
        else:
            in_list = in_list and bool(line.strip())
            yield line
        blank = not line.strip()
