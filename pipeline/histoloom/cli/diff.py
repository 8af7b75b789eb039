"""`histoloom diff A B`: which tiles, models and params changed between two versions of a dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rich.table import Table
from ruamel.yaml import YAML

from histoloom.data.commit import RECORD
from histoloom.errors import HistoloomError
from histoloom.progress import console

_STORES = ("data/tiles", "data/synthetic", "data/woven", "data/woven_tiles", "data/verdicts")


def print_diff(a: str, b: str | None) -> None:
    """Print params, outputs and parts that differ; `b` None is the workspace."""
    title = f"{a} .. {b or 'workspace'}"
    params = _params(a, b)
    console.print(f"params ({title})", markup=False)
    for name, (old, new) in sorted(params.items()):
        console.print(f"  {name}: {old} -> {new}", markup=False)
    table = Table("output", "changed", "parts added", "removed", "rewritten", "tiles")
    old_outs, new_outs = _outputs(a), _outputs(b)
    for path in sorted({*old_outs, *new_outs}):
        if old_outs.get(path) == new_outs.get(path):
            continue
        change = "new" if path not in old_outs else "gone" if path not in new_outs else "changed"
        table.add_row(path, change, *(_parts(path, a, b) if path in _STORES else ("", "", "", "")))
    console.print(table if table.row_count else "outputs: the same")


def _params(a: str, b: str | None) -> dict[str, tuple]:
    command = [sys.executable, "-m", "dvc", "params", "diff", "--json", a, *([b] if b else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HistoloomError(f"dvc can't compare '{a}' with '{b or 'the workspace'}': {done.stderr.strip()}")
    files = json.loads(done.stdout or "{}")
    return {name: (change.get("old"), change.get("new")) for name, change in files.get("params.yaml", {}).items()}


def _outputs(revision: str | None) -> dict[str, str]:
    """Output to its hash, from the dvc.lock of a revision."""
    if revision is None:
        path = Path("dvc.lock")
        text = path.read_text(encoding="utf-8") if path.exists() else ""
    else:
        done = subprocess.run(["git", "show", f"{revision}:dvc.lock"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise HistoloomError(f"Revision '{revision}' has no dvc.lock: {done.stderr.strip()}")
        text = done.stdout
    lock = YAML(typ="safe").load(text) or {"stages": {}}
    return {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", [])}


def _parts(store: str, a: str, b: str | None) -> tuple[str, str, str, str]:
    try:
        old, new = _records(store, a), _records(store, b)
    except (OSError, ValueError) as error:
        return ("?", "?", "?", f"not in the cache: dvc fetch ({type(error).__name__})")
    both = old.keys() & new.keys()
    rewritten = [p for p in both if old[p]["files"] != new[p]["files"]]
    tiles = [sum(r["info"].get("tiles", 0) for r in records.values()) for records in (old, new)]
    added, removed = new.keys() - old.keys(), old.keys() - new.keys()
    return str(len(added)), str(len(removed)), str(len(rewritten)), f"{tiles[0]} -> {tiles[1]}"


def _records(store: str, revision: str | None) -> dict[str, dict]:
    """Part to commit record, of a revision through DVC's cache, or of the workspace."""
    if revision is None:
        return {p.parent.name: json.loads(p.read_text(encoding="utf-8")) for p in Path(store).glob(f"*/{RECORD}")}
    from dvc.api import DVCFileSystem

    files = DVCFileSystem(rev=revision)
    if not files.exists(store):
        return {}
    parts = [p for p in files.ls(store, detail=False) if files.exists(f"{p}/{RECORD}")]
    return {Path(p).name: json.loads(files.read_text(f"{p}/{RECORD}")) for p in parts}
