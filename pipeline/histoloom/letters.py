"""Letters that the members of a crew write to one another, as one process holds them."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any


class Deserted(Exception):
    """A member is gone, and so nobody gets on."""


class Letters:
    """What came for the members of one process, and how far they are."""

    def __init__(self) -> None:
        self._there: dict[Hashable, Any] = {}
        self._failed: set[int] = set()
        self._closed = False
        self._changed = threading.Condition()
        self.done = 0

    def put(self, key: Hashable, value: Any) -> None:
        with self._changed:
            if key in self._there:
                raise ValueError(f"two letters are named {key}")
            self._there[key] = value
            self._changed.notify_all()

    def take(self, key: Hashable, seconds: float) -> tuple[Any, ...]:
        """The letter of this name, alone in a tuple; an empty one where none came in time.

        Raises
        ------
        Deserted
            when the crew was sent home.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or key in self._there, seconds)
            if self._closed:
                raise Deserted("the crew was sent home")
            return (self._there.pop(key),) if key in self._there else ()

    def advance(self, count: int) -> None:
        with self._changed:
            self.done += count

    def fail(self, rank: int) -> None:
        self._failed.add(rank)

    def failed(self, rank: int) -> bool:
        return rank in self._failed

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
