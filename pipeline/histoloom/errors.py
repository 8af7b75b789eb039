"""What goes wrong through the user's input, said so that the user can mend it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class HistoloomError(Exception):
    """An error that a user can act on: what happened, to which item, and what to do about it."""


def with_extra(name: str) -> str:
    """How to get the packages of an extra, which a clone and a wheel do differently."""
    return f"install histoloom with its extra '{name}' (docs/how-to/install.md, Extras)"


@dataclass(frozen=True)
class Fault:
    """One thing wrong in what the user stated.

    `row` is the line in the file as an editor counts it (the header is line 1), or None.
    """

    where: str
    problem: str
    remedy: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        return f"{_place(self)}: {self.problem} Remedy: {self.remedy}"


Problem = tuple[str, str, str]
"""A key of params, what is wrong with it, and how to mend it."""


def key_fault(key: str, problem: str, remedy: str) -> Fault:
    """A fault of one key of params.yaml, such as 'tile.mpp'."""
    return Fault(f"params.yaml, {key}", problem, remedy)


@dataclass(frozen=True)
class Note:
    """One thing that the user should know and need not mend, such as a count of what is left out."""

    where: str
    fact: str
    row: int | None = None
    column: str | None = None

    def __str__(self) -> str:
        return f"{_place(self)}: {self.fact}"


def _place(found: Fault | Note) -> str:
    place = found.where
    if found.row is not None:
        place += f", row {found.row}"
    if found.column is not None:
        place += f", column '{found.column}'"
    return place


def faults_among(found: Iterable[Fault | Note]) -> list[Fault]:
    """What has to be mended before a stage may run."""
    return [each for each in found if isinstance(each, Fault)]


def notes_among(found: Iterable[Fault | Note]) -> list[Note]:
    """What is said and stops nothing."""
    return [each for each in found if isinstance(each, Note)]


class ManifestFaults(HistoloomError):
    """Every fault of the manifests, reported in one go."""

    def __init__(self, faults: list[Fault]):
        self.faults = faults
        lines = "\n".join(f"  - {line}" for line in lines_of(faults))
        super().__init__(f"{count_of(faults)} in what the manifests state:\n{lines}")


def lines_of(found: Sequence[Fault | Note]) -> list[str]:
    """A line for each fault or note, and one alone for those that differ only in their row or in what they quote."""
    return [_line(members) for members in _alike(found)]


def count_of(faults: Sequence[Fault]) -> str:
    """How many lines `lines_of` makes of the faults, and how many rows they are in."""
    rows = len({(fault.where, fault.row) for fault in faults if fault.row is not None})
    return f"{len(_alike(faults))} fault(s)" + (f", in {rows:,} rows" if rows > 1 else "")


_QUOTED = re.compile(r"^[^:']+(?=: )|'[^']*'|\d+(?:\.\d+)?")
"""What may differ between faults of one line: a name before a colon, values in quotes, numbers."""
_VALUES_SHOWN, _RUNS_SHOWN = 3, 8


def _alike(found: Sequence[Fault | Note]) -> list[list[Fault | Note]]:
    """Those of one file together, and those of all files together where many files share them."""
    kinds: dict[tuple, dict[str, list]] = {}
    for each in found:
        kind = (type(each), each.column, _QUOTED.sub("", _said(each)), getattr(each, "remedy", ""))
        kinds.setdefault(kind, {}).setdefault(each.where, []).append(each)
    groups: list[list[Fault | Note]] = []
    for by_file in kinds.values():
        shared = len(by_file) > _VALUES_SHOWN
        groups += [[each for members in by_file.values() for each in members]] if shared else by_file.values()
    place = {id(each): number for number, each in enumerate(found)}
    return sorted(groups, key=lambda members: place[id(members[0])])


def _said(found: Fault | Note) -> str:
    return found.problem if isinstance(found, Fault) else found.fact


def _line(members: list[Fault | Note]) -> str:
    first, files = members[0], list(dict.fromkeys(each.where for each in members))
    rows = sorted({each.row for each in members if each.row is not None})
    if len(files) > 1:
        place = _listed(files[:_VALUES_SHOWN], len(files) - _VALUES_SHOWN)
    else:
        place = first.where + (f", {_rows_as_text(rows)}" if rows else "")
    place += f", column '{first.column}'" if first.column is not None else ""
    remedy = f" Remedy: {first.remedy}" if isinstance(first, Fault) else ""
    return f"{place}: {_problems_as_text([_said(each) for each in members])}{remedy}"


def _rows_as_text(rows: Sequence[int]) -> str:
    """Sorted rows in words: 'row 5', 'rows 2 and 9', 'rows 2 to 40, 44 and 51 to 1879'."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][-1] + 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    runs = [part for run in runs for part in ([run] if len(run) > 2 else [[row] for row in run])]
    texts = [f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    hidden = sum(len(run) for run in runs[_RUNS_SHOWN:])
    return f"row{'s' if len(rows) > 1 else ''} {_listed(texts[:_RUNS_SHOWN], hidden)}"


def _problems_as_text(problems: list[str]) -> str:
    """One problem for all: where a single value varies, with its first values; where several do, the first problem."""
    shown = list(dict.fromkeys(problems))
    if len(shown) == 1:
        return shown[0]
    values = [_QUOTED.findall(problem) for problem in shown]
    varying = [place for place, column in enumerate(zip(*values)) if len(set(column)) > 1]
    if len(varying) != 1:
        return f"{shown[0]} So with {len(shown) - 1:,} more."
    (place,) = varying
    head = [match.span() for match in _QUOTED.finditer(shown[0])][place]
    found = [each[place] for each in values]
    listed = _listed(found[:_VALUES_SHOWN], len(found[_VALUES_SHOWN:]))
    return shown[0][: head[0]] + listed + shown[0][head[1] :]


def _listed(texts: list[str], more: int) -> str:
    """'a', 'a and b', 'a, b and c', or 'a, b, c and 12 more'."""
    texts = [*texts, f"{more:,} more"] if more else texts
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


def refuse_faults(found: Iterable[Fault | Note]) -> None:
    """Go on where notes alone were found.

    Raises
    ------
    ManifestFaults
        with every fault among them.
    """
    if faults := faults_among(found):
        raise ManifestFaults(faults)
