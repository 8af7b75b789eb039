"""How each stage of a study stands: never run, running, done or out of date, and why."""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from histoloom.data.commit import RECORD
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.studies.changes import Changed, Known, Reason, made_by, reasons_of
from histoloom.studies.dvc_changes import changes
from histoloom.studies.resolve import write_resolved
from histoloom.studies.stage_work import PROGRESS

ALWAYS = "resolve"
"""The stage that runs each time, and so is never out of date."""


@dataclass(frozen=True)
class Progress:
    """How far a stage's work is.

    title : of the piece of work that is counted. fraction : 0 to 1. seconds_left : None where no speed is known yet. silent_s : seconds since
    the last count.
    """

    title: str
    fraction: float
    seconds_left: float | None
    silent_s: float


@dataclass(frozen=True)
class StageState:
    """How one stage stands.

    reasons : of one that is out of date. progress : of one that is running, and of one that was stopped before it was done. process : the id of
    the process that runs it. parts, checkpoints : what is kept of a run that was stopped, or goes on.
    """

    name: str
    state: Literal["never run", "running", "done", "out of date"]
    reasons: tuple[Reason, ...] = ()
    progress: Progress | None = None
    process: str | None = None
    parts: int = 0
    checkpoints: int = 0


def stage_states(study: Study) -> list[StageState]:
    """The state of every stage of dvc.yaml but `resolve`, which is done here first, as each run does it.

    Raises
    ------
    HistoloomError
        when there is no dvc.yaml, or DVC fails.
    """
    path = study.root / "dvc.yaml"
    if not path.exists():
        raise HistoloomError("There is no dvc.yaml here. Run this in a study's folder, or make one: histoloom init DIR")
    written, locked = (_stages(place) for place in (path, study.root / "dvc.lock"))
    if ALWAYS in written:
        write_resolved(study)
    stages = {name: entry for stage, given in written.items() for name, entry in _named(stage, given)}
    known = Known(study, stages, locked, _read(study.resolved))
    processes = {name: process for name in stages if (process := _process(study.work(name))) is not None}
    asked = [name for name in stages if name in locked and name not in processes and name != ALWAYS]
    found = (
        changes(study.root, asked, {place for name in processes for place in made_by(stages[name])}) if asked else {}
    )
    states: dict[str, StageState] = {}
    for name in stages:
        if name in processes:
            states[name] = StageState(
                name, "running", (), _progress(study.work(name)), processes[name], *_kept(study.work(name))
            )
        elif name != ALWAYS:
            states[name] = _state(name, found.get(name), known, states)
    return [*states.values()]


def _named(stage: str, given: dict) -> Iterator[tuple[str, dict]]:
    """A stage's names in dvc.lock, with what dvc.yaml says of each: one for each model where it is run for each."""
    if "foreach" not in given:
        yield stage, given
        return
    for item in given["foreach"]:
        yield f"{stage}@{item}", json.loads(json.dumps(given["do"]).replace("${item}", item))


def _state(name: str, changed: Changed | None, known: Known, before: dict[str, StageState]) -> StageState:
    """Of a stage that is not running. changed : None of one that was never run."""
    work = known.study.work(name)
    if changed is None:
        return StageState(name, "never run", (), _progress(work), None, *_kept(work))
    reasons = tuple(dict.fromkeys(reasons_of(name, changed, known)))
    said = {reason.what for reason in reasons if reason.kind == "earlier"}
    reasons += tuple(
        Reason("waits", each, f"waits for {each}") for each in _waits(name, known, before) if each not in said
    )
    if reasons:
        return StageState(name, "out of date", reasons, _progress(work), None, *_kept(work))
    return StageState(name, "done")


def _kept(work: Path) -> tuple[int, int]:
    """How many parts and checkpoints are committed in a work folder."""
    parts, checkpoints = (sum(1 for _ in work.glob(f"*/{kind}/*/{RECORD}")) for kind in ("parts", "checkpoints"))
    return parts, checkpoints


def _waits(name: str, known: Known, before: dict[str, StageState]) -> list[str]:
    """The earlier stages that are to run first of themselves, not for what is before them."""
    makers = {known.maker(str(place)) for place in known.stages[name].get("deps", ())}
    out: list[str] = []
    for maker in [state for stage, state in before.items() if stage in makers and state.state != "done"]:
        only_waits = maker.reasons and all(reason.kind == "waits" for reason in maker.reasons)
        out += [reason.what for reason in maker.reasons] if only_waits else [maker.name]
    return [stage for stage in before if stage in out]


def _stages(path: Path) -> dict[str, dict]:
    try:
        found = _read(path).get("stages") or {}
        if not isinstance(found, dict):
            raise YAMLError("stages is no mapping")
    except (YAMLError, AttributeError) as error:
        remedy = (
            "Write it anew: histoloom stages > dvc.yaml"
            if path.suffix == ".yaml"
            else "Take it from git: git checkout dvc.lock"
        )
        raise HistoloomError(f"{path.name} can't be read: {error}. {remedy}") from error
    return found


def _read(path: Path) -> dict:
    return (YAML(typ="safe").load(path.read_text(encoding="utf-8")) if path.exists() else None) or {}


def _process(work: Path) -> str | None:
    """The process that holds a stage's lock; None where nobody does, as after a kill."""
    lock = work / "lock"
    if not lock.exists():
        return None
    with lock.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return handle.read().strip() or "unknown"
    return None


def _progress(work: Path) -> Progress | None:
    try:
        kept = json.loads((work / PROGRESS).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    counted, took = kept["done"] - kept["done_then"], kept["at"] - kept["since"]
    silent = max(0.0, time.time() - kept["at"])
    left = max(0.0, (kept["total"] - kept["done"]) * took / counted - silent) if counted > 0 and took > 0 else None
    return Progress(kept["title"], kept["done"] / kept["total"] if kept["total"] else 1.0, left, silent)
