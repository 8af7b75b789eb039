"""Long reports to captions, by any command that reads a report on stdin and writes a caption on stdout."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

from histoloom.data.commit import command_files, digest
from histoloom.data.slide_entry import SlideEntry
from histoloom.errors import HistoloomError


def summarised(entries: tuple[SlideEntry, ...], command: str, cache: Path) -> tuple[SlideEntry, ...]:
    """The entries with their captions summarised; an answer is kept by the command, the files that it names, and the report.

    Raises
    ------
    HistoloomError
        when the command can't be run, fails, or answers nothing; answers that were kept stay.
    """
    cache.mkdir(parents=True, exist_ok=True)
    return tuple(replace(e, caption=_summary(e, command, cache)) if e.caption else e for e in entries)


def _summary(entry: SlideEntry, command: str, cache: Path) -> str:
    kept = cache / f"{digest([command, command_files(command), entry.caption])}.txt"
    if not kept.exists():
        try:
            done = subprocess.run(
                shlex.split(command), input=entry.caption, capture_output=True, text=True, check=True, encoding="utf-8"
            )
        except (OSError, ValueError) as error:
            raise HistoloomError(f"tile.summarise: '{command}' can't be run ({error}).") from error
        except subprocess.CalledProcessError as error:
            raise HistoloomError(
                f"tile.summarise: '{command}' failed on slide '{entry.slide_id}': {error.stderr.strip()[-500:]}"
            ) from error
        answer = " ".join(done.stdout.split())
        if not answer:
            raise HistoloomError(f"tile.summarise: '{command}' answered nothing for slide '{entry.slide_id}'.")
        whole = kept.with_suffix(".part")
        whole.write_text(answer, encoding="utf-8")
        whole.replace(kept)
    return kept.read_text(encoding="utf-8")
