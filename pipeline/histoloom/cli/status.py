"""`histoloom status`: how each stage stands, in lines that fit a terminal, or as JSON."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

import click

import histoloom
from histoloom.data.study_folder import Study
from histoloom.studies.changes import Reason
from histoloom.studies.dvc_yaml import VERSION_FILE
from histoloom.studies.stage_state import ALWAYS, StageState, stage_states

_COLOURS = {"running": "cyan", "done": "green", "out of date": "yellow", "never run": None}
_REASONS_SHOWN, _WAITS_SHOWN = 4, 3
_SILENT_S = 300


def print_status(study: Study, *, as_json: bool) -> None:
    """A line for each stage of dvc.yaml, and below those that are out of date a line for each reason.

    The stage that runs each time has no state; a last line says so.
    """
    states = stage_states(study)
    if as_json:
        click.echo(json.dumps([asdict(state) for state in states], indent=2, ensure_ascii=False))
        return
    wide = max(80, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 80
    name_wide = min(max(len(state.name) for state in states), wide // 2)
    for state in states:
        name = _fitting(state.name, name_wide)
        details, lines, room = _details(state), list(_reasons(state.reasons)), wide - name_wide - 15
        if not details and len(lines) == 1 and len(lines[0]) <= room:
            details = lines.pop()
        details = _fitting(details, room)
        said = click.style(state.state, fg=_COLOURS[state.state])
        click.echo(f"{name:{name_wide}}  {said}" + (f"{'':{13 - len(state.state)}}{details}" if details else ""))
        for line in lines:
            click.echo(f"    {_fitting(line, wide - 4)}")
    count: Counter[str] = Counter(state.state for state in states)
    click.echo(", ".join(f"{count[name]} {name}" for name in _COLOURS if count[name]) + "." + _then(count))
    click.echo(f"Not listed: {ALWAYS}. It reads params.yaml before each run, and takes a moment.")
    if (stated := _other_version(study)) is not None:
        click.echo(f"{_fitting(f'{VERSION_FILE} says {stated!r}, and {histoloom.__version__} is installed.', wide)}")
        click.echo("All stages depend on that file. To run them all again, edit it.")


def _then(count: Counter[str]) -> str:
    return " Next: dvc repro" if count["out of date"] + count["never run"] and not count["running"] else ""


def _other_version(study: Study) -> str | None:
    path = study.root / VERSION_FILE
    stated = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    return stated if stated.startswith("histoloom ") and stated != f"histoloom {histoloom.__version__}" else None


def _details(state: StageState) -> str:
    """How far it is, or how far it was when it was stopped, and what is kept."""
    if state.state == "running":
        return ", ".join([*_far(state), f"process {state.process}"])
    if state.state == "done" or (state.state == "out of date" and state.progress is None):
        return ""
    stopped = [f"stopped at {_percent(state)}"] if state.progress else []
    counted = (("part", state.parts), ("checkpoint", state.checkpoints))
    return ", ".join([*stopped, *(f"{n} {what}{'s' * (n > 1)} kept" for what, n in counted if n)])


def _far(state: StageState) -> Iterator[str]:
    if state.progress is None:
        return
    yield _percent(state)
    if state.progress.silent_s > _SILENT_S:
        yield f"no progress for {_duration(state.progress.silent_s)}"
    elif state.progress.seconds_left is not None:
        yield f"{_duration(state.progress.seconds_left)} left"


def _percent(state: StageState) -> str:
    """How far the work is; of a stage whose work is in several pieces, which of them."""
    if state.progress is None:
        return ""
    title = state.progress.title.removeprefix(f"{state.name.partition('@')[0]}: ")
    return f"{int(100 * state.progress.fraction)} %" + (f" of {title}" if title != state.name.partition("@")[0] else "")


def _duration(seconds: float) -> str:
    """Seconds in words: '40 s', '3 min', '2 h 5 min', '3 days 4 h'."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} days {hours % 24} h"


def _reasons(reasons: tuple[Reason, ...]) -> Iterator[str]:
    own = [reason.text for reason in reasons if reason.kind != "waits"]
    yield from own[:_REASONS_SHOWN]
    if len(own) > _REASONS_SHOWN:
        yield f"and {len(own) - _REASONS_SHOWN:,} more (histoloom status --json)"
    if waits := [reason.what for reason in reasons if reason.kind == "waits"]:
        more = len(waits) - _WAITS_SHOWN
        yield f"waits for {', '.join(waits[:_WAITS_SHOWN])}" + (f" and {more} more" if more > 0 else "")


def _fitting(text: str, wide: int) -> str:
    """A text that fits: of one that is too long, the middle is left out, so that the end of a path stays."""
    if len(text) <= wide:
        return text
    head = (wide - 1) // 2
    return f"{text[:head]}…{text[len(text) - (wide - 1 - head) :]}"
