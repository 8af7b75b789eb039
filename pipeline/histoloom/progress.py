"""Progress of long work on the terminal, and a line now and then where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
console = Console(stderr=True, highlight=False, emoji=False)  # an id may hold :words: that stand for pictures
if not console.is_terminal:
    console.width = 1000  # a log keeps a line whole, and a path in it

_QUIET_LINE_EVERY_S = 10.0


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Yield `advance(n=1, note="")`; a bar on a terminal, else a line at most every ten seconds."""
    if console.is_terminal and sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total, note="")
            yield lambda n=1, note="": bar.update(task, advance=n, note=note)
        return
    done, last = 0, time.monotonic()

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last
        done += n
        now = time.monotonic()
        if now - last >= _QUIET_LINE_EVERY_S:
            last = now
            console.print(f"{title}: {done}/{total} {note}".rstrip())

    yield advance
    console.print(f"{title}: {done}/{total} done")


def track(items: Iterable[T], title: str, total: int) -> Iterator[T]:
    """Iterate over `items` and show how far it is."""
    with progress(title, total) as advance:
        for item in items:
            yield item
            advance()
