"""What every stage shares: its lock, its work folder, its promotion, and how it fails.

Work lands in `.work/STAGE/FINGERPRINT/`, outside the outputs that DVC deletes before a stage runs. The lock is held
by the process, so a stage that `dvc repro` left behind when it was killed still holds it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pipeline
from pipeline.data.commit import digest, discard, hash_tree, link_tree, read_record, replace_tree, write_json
from pipeline.errors import HistoloomError
from pipeline.progress import console

WORK = Path(".work")


@cache
def code_fingerprint() -> str:
    """sha256 of the pipeline's sources: work that another version began is not taken up."""
    root = Path(pipeline.__file__).parent
    return digest(
        {
            p.relative_to(root).as_posix(): p.read_text(encoding="utf-8")
            for p in sorted(root.rglob("*.py"))
            if p.relative_to(root).parts[0] not in ("cli", "report")
        }
    )


@dataclass(frozen=True)
class Work:
    """The work folder of one run of a stage: `root` is its own, `parts` holds what was committed."""

    name: str
    fingerprint: str
    root: Path

    @property
    def parts(self) -> Path:
        return self.root / "parts"

    def promote_parts(self, names: list[str], output: Path | str, facts: dict[str, Any] | None = None) -> None:
        """Publish committed parts as a folder of parts, whole, with `facts` (file name to JSON) beside them."""
        staged = self._staging(output)
        for name in names:
            if read_record(self.parts / name) is None:
                raise HistoloomError(f"Part '{name}' of stage '{self.name}' was not committed; run the stage again.")
            link_tree(self.parts / name, staged / name)
        for name, value in (facts or {}).items():
            write_json(staged / name, value)
        replace_tree(staged, Path(output))

    def keep_parts(self, names: list[str]) -> None:
        """Forget the parts that the last promotion didn't use."""
        for part in self.parts.iterdir():
            if part.name not in names:
                discard(part)

    def promote(self, write: Callable[[Path], None], output: Path | str) -> None:
        """Publish what `write(folder)` writes, whole."""
        staged = self._staging(output)
        write(staged)
        replace_tree(staged, Path(output))

    def _staging(self, output: Path | str) -> Path:
        output = Path(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        for stale in output.parent.glob(f".new-{output.name}-*"):
            shutil.rmtree(stale, ignore_errors=True)
        staged = output.parent / f".new-{output.name}-{uuid.uuid4().hex[:8]}"
        staged.mkdir()
        return staged


@contextmanager
def _lock(folder: Path, name: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            console.print(
                f"Stage '{name}' is still being run by process {handle.read().strip() or 'unknown'} "
                "(perhaps left by a killed `dvc repro`); waiting for it."
            )
            fcntl.flock(handle, fcntl.LOCK_EX)
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


@contextmanager
def open_stage(name: str, *, params: dict, inputs: list[Path | str], shared_parts: bool = False) -> Iterator[Work]:
    """Take the stage's lock and open its work folder, keyed by params, inputs and code.

    Parameters
    ----------
    inputs : files and folders whose contents the result depends on; a missing one is an error that names it.
    shared_parts : keep one `parts` folder for all fingerprints, where a part's name holds its own fingerprint.
    """
    missing = [str(path) for path in inputs if not Path(path).exists()]
    if missing:
        raise HistoloomError(f"Stage '{name}' needs {', '.join(missing)}, which is missing. Run: dvc repro {name}")
    with _lock(WORK / name, name):
        fingerprint = digest(
            {"params": params, "code": code_fingerprint(), "inputs": [hash_tree(Path(path)) for path in inputs]}
        )[:16]
        root = WORK / name / ("shared" if shared_parts else fingerprint)
        for other in (WORK / name).iterdir():
            if other.is_dir() and other != root:
                discard(other)
        (root / "parts").mkdir(parents=True, exist_ok=True)
        for stale in [*(root / "parts").glob(".tmp-*"), *(root / "parts").glob(".gone-*")]:
            shutil.rmtree(stale, ignore_errors=True)
        yield Work(name, fingerprint, root)


def run(main: Callable[[], None]) -> None:
    """Run a stage's main: an error that the user can mend ends as words, not as a traceback."""
    try:
        main()
    except HistoloomError as error:
        console.print(f"[bold red]error:[/] {_escape(str(error))}")
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("Stopped. What was committed is kept: run `dvc repro` to go on from there.")
        sys.exit(130)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
