"""What goes wrong through the user's input, said so that the user can mend it."""

from __future__ import annotations

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
        place = self.where
        if self.row is not None:
            place += f", row {self.row}"
        if self.column is not None:
            place += f", column '{self.column}'"
        return f"{place}: {self.problem} Remedy: {self.remedy}"


class ManifestFaults(HistoloomError):
    """Every fault of the manifests, reported in one go."""

    def __init__(self, faults: list[Fault]):
        self.faults = faults
        lines = "\n".join(f"  - {fault}" for fault in faults)
        super().__init__(f"{len(faults)} fault(s) in what the manifests state:\n{lines}")
