"""`histoloom status`: what is done, what is out of date, what is in flight."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from pathlib import Path

from rich.table import Table
from ruamel.yaml import YAML

from pipeline.data.commit import RECORD
from pipeline.errors import HistoloomError
from pipeline.progress import console
from pipeline.stage import WORK


def print_status() -> None:
    """A line for each stage of dvc.yaml."""
    path = Path("dvc.yaml")
    if not path.exists():
        raise HistoloomError("There is no dvc.yaml here. Run this in a study's folder, or make one: histoloom init DIR")
    stages = YAML(typ="safe").load(path.read_text(encoding="utf-8"))["stages"]
    changed = _changed()
    table = Table("stage", "state", "in flight")
    for name in stages:
        reasons = changed.get(name)
        table.add_row(name, "done" if reasons is None else f"out of date: {reasons}", in_flight(WORK / name))
    console.print(table)


def _changed() -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise HistoloomError(f"dvc status failed: {done.stderr.strip()}")
    out = {}
    for name, entries in json.loads(done.stdout or "{}").items():
        words = []
        for entry in entries:
            if isinstance(entry, str):
                words.append(entry)
                continue
            for kind, files in entry.items():
                words += [f"{kind}: {', '.join(files)}" if isinstance(files, dict) else kind]
        out[name] = "; ".join(words)
    return out


def in_flight(work: Path) -> str:
    """Who holds the stage's lock, and how many parts and checkpoints are committed in its work folder."""
    lock = work / "lock"
    if not lock.exists():
        return ""
    with lock.open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            running = ""
        except BlockingIOError:
            running = f"process {handle.read().strip()}, "
    parts = len(list(work.glob(f"*/parts/*/{RECORD}")))
    checkpoints = len(list(work.glob(f"*/checkpoints/*/{RECORD}")))
    kept = [f"{n} {what}" for n, what in ((parts, "parts committed"), (checkpoints, "checkpoints kept")) if n]
    return running + ", ".join(kept) if running or kept else ""
