"""Progress of long work on the terminal, and a line now and then where there is none."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")
console = Console(stderr=True, highlight=False, emoji=False)  # an id may hold :words: that stand for pictures
results = Console(highlight=False, emoji=False)
"""A command's answer, on the standard output. Progress, messages and errors go to the other."""
for _each in (console, results):
    if not _each.is_terminal:
        _each.width = 1000  # a log keeps a line whole, and a path in it

_QUIET_LINE_EVERY_S = 10.0
_RECORDED_EVERY_S = 1.0


class _Record:
    """A file that says how far work is, for other processes to read.

    title, done, total : what is done, and how much of it. since, done_then : the time of the first count, and that count, so that a speed
    can be told. at : the time of this count. Times are seconds of the epoch.
    """

    def __init__(self, path: Path):
        self.path, self.is_taken = path, False

    @contextmanager
    def of(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """Yield `advance(n)`. Of bars within bars, the outermost is recorded."""
        if self.is_taken:
            yield lambda n: None
            return
        self.is_taken = True
        done, since, done_then, last = 0, 0.0, 0, 0.0

        def advance(n: int) -> None:
            nonlocal done, since, done_then, last
            done, now = done + n, time.time()
            if not since:
                since, done_then = now, done
            if now - last < _RECORDED_EVERY_S and done < total:
                return
            last = now
            self._write(title=title, done=done, total=total, since=since, done_then=done_then, at=now)

        try:
            yield advance
        finally:
            self.is_taken = False

    def _write(self, **facts: object) -> None:
        whole = self.path.with_name(f".tmp-{self.path.name}")
        with suppress(OSError):  # a full disk stops what has to be written, not this
            whole.write_text(json.dumps(facts), encoding="utf-8")
            whole.replace(self.path)


_record: _Record | None = None


@contextmanager
def recorded(path: Path) -> Iterator[None]:
    """Keep in a file how far this process is. It is deleted when the work is done, and stays when it is broken off."""
    global _record
    path.unlink(missing_ok=True)
    _record = _Record(path)
    try:
        yield
    finally:
        _record = None
    path.unlink(missing_ok=True)


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Yield `advance(n=1, note="")`; a bar on a terminal, else a line at most every ten seconds, and one at the end.

    Nothing is shown of nothing: with a total of 0 there is no line.
    """
    if not total:
        yield lambda n=1, note="": None
        return
    if _record is None:
        with _shown(title, total) as advance:
            yield advance
        return
    with _shown(title, total) as show, _record.of(title, total) as keep:

        def advance_both(n: int = 1, note: str = "") -> None:
            show(n, note)
            keep(n)

        yield advance_both


@contextmanager
def _shown(title: str, total: int) -> Iterator[Callable[..., None]]:
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
        if now - last >= _QUIET_LINE_EVERY_S and done < total:  # the last line is the one that says done
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
