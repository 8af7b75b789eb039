"""`histoloom status`: what is done, what is out of date, what is in flight."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table
from ruamel.yaml import YAML

from histoloom.data.commit import RECORD
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.progress import console
from histoloom.studies.dvc_yaml import RESOLVED
from histoloom.studies.resolve import write_resolved


def print_status(study: Study) -> None:
    """A line for each stage of dvc.yaml but `resolve`, which runs each time, and is done here first."""
    path = study.root / "dvc.yaml"
    if not path.exists():
        raise HistoloomError("There is no dvc.yaml here. Run this in a study's folder, or make one: histoloom init DIR")
    stages = _read(path)["stages"]
    if "resolve" in stages:
        write_resolved(study)
    changed, ran = _changed(study), _read(study.root / "dvc.lock").get("stages", {})
    table = Table("stage", "state", "in flight")
    for name in (each for stage, entry in stages.items() for each in _names(stage, entry)):
        if name == "resolve":
            continue
        state = f"out of date: {changed[name]}" if name in changed else "done"
        is_done = name in ran and name not in changed
        table.add_row(name, state if name in ran else "not run yet", in_flight(study.work(name), is_done=is_done))
    console.print(table)


def _names(stage: str, entry: dict) -> list[str]:
    """A stage's names in dvc.lock: one for each model where it is run for each."""
    return [f"{stage}@{item}" for item in entry["foreach"]] if "foreach" in entry else [stage]


def _changed(study: Study) -> dict[str, str]:
    """Stage to what changed of what it depends on, and of what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=study.root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise HistoloomError(f"dvc status failed: {done.stderr.strip()}")
    return {name: "; ".join(_words(study, name, entries)) for name, entries in json.loads(done.stdout or "{}").items()}


def _words(study: Study, stage: str, entries: list) -> Iterator[str]:
    for entry in entries:
        for kind, files in entry.items() if isinstance(entry, dict) else [(entry, {})]:
            keys = files.pop(RESOLVED, {}) if isinstance(files, dict) else {}
            if isinstance(keys, dict) and keys:
                yield "changed params: " + ", ".join(_key(study, stage, key) for key in keys)
            if not keys or files:
                yield f"{kind}: {', '.join(files)}" if files else kind


def _key(study: Study, stage: str, key: str) -> str:
    """A key, and of `files.SECTION` those of the section's keys whose files changed."""
    if not key.startswith("files."):
        return key
    locked = _read(study.root / "dvc.lock")["stages"].get(stage, {}).get("params", {}).get(RESOLVED, {})
    section = key.removeprefix("files.")
    before, after = (found or {} for found in (locked.get(key), _read(study.resolved)["files"].get(section)))
    return ", ".join(f"files of {section}.{name}" for name in after if before.get(name) != after[name]) or key


def _read(path: Path) -> dict:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8")) if path.exists() else {}


def in_flight(work: Path, *, is_done: bool) -> str:
    """Who holds the stage's lock; and of a stage that is to run, how many parts and checkpoints are committed in its work folder."""
    lock = work / "lock"
    if not lock.exists():
        return ""
    with lock.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            running = ""
        except BlockingIOError:
            running = f"process {handle.read().strip()}, "
    if is_done and not running:
        return ""
    parts = len(list(work.glob(f"*/parts/*/{RECORD}")))
    checkpoints = len(list(work.glob(f"*/checkpoints/*/{RECORD}")))
    kept = [f"{n} {what}" for n, what in ((parts, "parts committed"), (checkpoints, "checkpoints kept")) if n]
    return running + ", ".join(kept) if running or kept else ""
