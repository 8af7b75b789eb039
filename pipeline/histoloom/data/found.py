"""What is wrong with what a user's file states, or worth saying, collected as it is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from histoloom.errors import Fault, Note


@dataclass
class Found:
    """The faults and notes of one file."""

    where: str
    all: list[Fault | Note] = field(default_factory=list)

    def fault(self, problem: str, remedy: str, row: int | None = None, column: str | None = None) -> None:
        self.all.append(Fault(self.where, problem, remedy, row, column))

    def note(self, fact: str, column: str | None = None) -> None:
        self.all.append(Note(self.where, fact, None, column))


def listed(names: Iterable[object], most: int = 5) -> str:
    """Names in quotes, of many the first, and how many more there are."""
    quoted = [f"'{name}'" for name in names]
    more = f" and {len(quoted) - most:,} more" if len(quoted) > most else ""
    return ", ".join(quoted[:most]) + more


def add_it(name: str, classes: Sequence[str]) -> str:
    """How a name that is none of the classes is mended: the class that was meant, or to add it."""
    near = difflib.get_close_matches(name, classes, 1)
    return f"did you mean '{near[0]}'? Else add it" if near else "add it"
