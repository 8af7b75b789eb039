"""`histoloom diff A B`: which tiles, models and params changed between two versions of a dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

import click
from rich.table import Table
from ruamel.yaml import YAML

from histoloom.data.commit import RECORD
from histoloom.errors import HistoloomError
from histoloom.progress import results

_STORES = ("data/tiles", "data/synthetic", "data/woven", "data/woven_tiles", "data/verdicts")


class Output(TypedDict):
    """An output that differs. added, removed, rewritten : parts of a store. tiles : before and after. note : why these aren't known."""

    path: str
    change: str
    added: int | None
    removed: int | None
    rewritten: int | None
    tiles: list[int] | None
    note: str


def print_diff(a: str, b: str | None, *, as_json: bool) -> None:
    """Print params, outputs and parts that differ; `b` None is the workspace."""
    params, outputs = _params(a, b), _changed_outputs(a, b)
    if as_json:
        changes = {name: {"before": old, "after": new} for name, (old, new) in params.items()}
        click.echo(json.dumps({"params": changes, "outputs": outputs}, indent=2, ensure_ascii=False, default=str))
        return
    results.print(f"params ({a} .. {b or 'workspace'})", markup=False)
    for name, (old, new) in sorted(params.items()):
        results.print(f"  {name}: {old} -> {new}", markup=False)
    table = Table("output", "changed", "parts added", "removed", "rewritten", "tiles")
    for each in outputs:
        counts = ["" if (n := each[name]) is None else str(n) for name in ("added", "removed", "rewritten")]
        tiles = each["note"] if each["tiles"] is None else " -> ".join(map(str, each["tiles"]))
        table.add_row(each["path"], each["change"], *counts, tiles)
    results.print(table if table.row_count else "outputs: the same")


def _changed_outputs(a: str, b: str | None) -> list[Output]:
    old_outs, new_outs = _outputs(a), _outputs(b)
    out = []
    for path in sorted({*old_outs, *new_outs}):
        if old_outs.get(path) == new_outs.get(path):
            continue
        change = "new" if path not in old_outs else "gone" if path not in new_outs else "changed"
        bare = Output(path=path, change=change, added=None, removed=None, rewritten=None, tiles=None, note="")
        out.append(_with_parts(bare, a, b) if path in _STORES else bare)
    return out


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


def _with_parts(out: Output, a: str, b: str | None) -> Output:
    """An output that is a store, with what of its parts differs."""
    try:
        old, new = _records(out["path"], a), _records(out["path"], b)
    except (OSError, ValueError) as error:
        out["note"] = f"not in the cache: dvc fetch ({type(error).__name__})"
        return out
    rewritten = [p for p in old.keys() & new.keys() if old[p]["files"] != new[p]["files"]]
    out["added"], out["removed"], out["rewritten"] = (
        len(new.keys() - old.keys()),
        len(old.keys() - new.keys()),
        len(rewritten),
    )
    out["tiles"] = [sum(r["info"].get("tiles", 0) for r in records.values()) for records in (old, new)]
    return out


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
