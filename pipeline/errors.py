"""What goes wrong through the user's input, said so that the user can mend it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class HistoloomError(Exception):
    """An error that a user can act on: what happened, to which item, and what to do about it."""


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
        lines = "\n".join(f"  - {fault}" for fault in faults)
        super().__init__(f"{len(faults)} fault(s) in what the manifests state:\n{lines}")
