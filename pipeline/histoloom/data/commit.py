"""Atomic commits: a part is written whole or not at all, and its record says what was written.

A part is a folder. It is written under a temporary name, every file synced, its `commit.json` (sha256 of each
file) written last, and the folder renamed to its name. A rename onto a part that is there already fails, so of
two tasks that make the same part one wins, and both made the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shlex
import shutil
import stat
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

from histoloom.errors import HistoloomError

RECORD = "commit.json"


class CommitRecord(TypedDict):
    """What a part's commit.json says.

    files : each file's place in the part, to its sha256.
    info : what whoever wrote the part says of it.
    """

    files: dict[str, str]
    info: dict[str, Any]


def sha256_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Any) -> str:
    """sha256 of a JSON-able value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def hash_tree(path: Path) -> str:
    """sha256 over a file, or over a folder's relative names and contents.

    A part's record stands for its files, so a store of gigabytes costs a few kilobytes of reading.
    """
    if path.is_file():
        return sha256_file(path)
    if (path / RECORD).exists():
        return sha256_file(path / RECORD)
    entries = {child.name: hash_tree(child) for child in path.iterdir() if not child.name.startswith(".")}
    return digest(entries)


def command_files(command: str | None) -> dict[str, str]:
    """The files that a command names, and their sha256: what another version of them predicted is not taken up."""
    return {word: sha256_file(Path(word)) for word in shlex.split(command or "") if Path(word).is_file()}


def sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _seal(path: Path) -> str:
    sync(path)
    return sha256_file(path)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole: to a neighbour, synced, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{uuid.uuid4().hex[:8]}")
    temporary.write_text(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")
    sync(temporary)
    temporary.replace(path)


def read_record(part: Path) -> CommitRecord | None:
    """The part's commit record, or None if it was never committed."""
    try:
        return json.loads((part / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def commit_part(root: Path, name: str, write: Callable[[Path], Mapping[str, object] | None]) -> CommitRecord:
    """Make the part `root/name` by calling `write(folder)`, unless it is there; return its record.

    Parameters
    ----------
    write : called with an empty folder; what it returns is kept in the record as `info`.

    Raises
    ------
    HistoloomError
        when the disk is full; nothing that was committed is lost.
    """
    target = root / name
    if (record := read_record(target)) is not None:
        return record
    folder = root / f".tmp-{name}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    try:
        info = dict(write(folder) or {})
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        with ThreadPoolExecutor(max_workers=4) as pool:  # while the disk syncs one file, another is hashed
            hashes = list(pool.map(_seal, files))
        places = (path.relative_to(folder).as_posix() for path in files)
        record = CommitRecord(files=dict(zip(places, hashes)), info=info)
        write_json(folder / RECORD, record)
        sync(folder)
        return _settle(folder, target, record)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HistoloomError(
                f"The disk that holds {root} is full; part '{name}' was not written, all parts committed before "
                "it are kept. Make room and run the same command again: it goes on where it stopped."
            ) from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settle(folder: Path, target: Path, record: CommitRecord) -> CommitRecord:
    """Rename a whole part to its name; the record of the one that is there, if another task was first."""
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if (before := read_record(target)) is not None:
            return before
        discard(target)  # no part: what a deletion left that was broken off
        return _settle(folder, target, record)
    sync(target.parent)
    return record


def discard(folder: Path) -> None:
    """Delete a folder. It loses its name first, so that one whose deletion is broken off is taken for nothing that it was."""
    gone = folder.with_name(f".gone-{uuid.uuid4().hex[:8]}")
    with suppress(FileNotFoundError):  # another task was first
        folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def link_tree(source: Path, target: Path) -> None:
    """Hard-link a folder's files to a new place, or copy them where the file system has no links."""
    for file in source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file, place)
            except OSError:
                shutil.copy2(file, place)


def let_read(folder: Path) -> None:
    """Let whoever may read a folder read its files: safetensors writes each for its owner alone."""
    wanted = stat.S_IMODE(folder.stat().st_mode) & 0o666
    for path in folder.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.is_file() and mode | wanted != mode:
            path.chmod(mode | wanted)


def replace_tree(new: Path, target: Path) -> None:
    """Put the folder or file `new` at `target`, in one rename, whatever was there."""
    if new.is_dir():
        let_read(new)
    target.parent.mkdir(parents=True, exist_ok=True)
    old = target.with_name(f".old-{target.name}-{uuid.uuid4().hex[:8]}")
    if target.exists():
        target.rename(old)
    new.rename(target)
    sync(target.parent)
    shutil.rmtree(old, ignore_errors=True) if old.is_dir() else old.unlink(missing_ok=True)
