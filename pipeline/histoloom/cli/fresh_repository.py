"""A folder that is made whole or not at all, and the git and DVC repository in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from histoloom.errors import HistoloomError
from histoloom.progress import console

_STAGED = ".histoloom-init-"
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")
"""Variables by which git, called from a hook, would work in another repository."""


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A folder to write into, whose contents are `folder`'s at the end; after any error nothing is left of it.

    Raises
    ------
    HistoloomError
        when the folder holds something already, is a file, or can't be written.
    """
    try:
        there = folder.exists()
    except OSError as error:
        raise HistoloomError(f"{str(folder)[:80]} can't be a folder ({error.strerror}). Name another.") from None
    if folder.is_symlink() and not there:
        raise HistoloomError(f"{folder} is a link to {folder.readlink()}, which is not there. Name a new folder.")
    if there and not folder.is_dir():
        raise HistoloomError(f"{folder} is a file. Name a new folder.")
    if there and any(not child.name.startswith(_STAGED) for child in folder.iterdir()):
        raise HistoloomError(f"{folder} is not empty. Name a new folder, so that nothing of yours is overwritten.")
    lacking = [parent for parent in folder.parents if not parent.exists()]
    staged = (folder if there else folder.parent) / f"{_STAGED}{uuid.uuid4().hex[:8]}"
    try:
        if there:
            _remove_staged(folder)
        staged.mkdir(parents=True)
        yield staged
        if there:
            _move_in(staged, folder)
        else:
            staged.rename(folder)
    except OSError as error:
        raise HistoloomError(f"{folder} can't be made ({error}). Nothing is left of it.") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        for parent in lacking:  # they stay where they hold the study
            with suppress(OSError):
                parent.rmdir()


def _move_in(staged: Path, folder: Path) -> None:
    """The contents alone: the folder may be a mount, or where the user's shell is."""
    children = sorted(staged.iterdir())
    try:
        for child in children:
            child.rename(folder / child.name)
    finally:
        if any(staged.iterdir()):
            for child in children:
                moved = folder / child.name
                shutil.rmtree(moved) if moved.is_dir() else moved.unlink(missing_ok=True)


def _remove_staged(folder: Path) -> None:
    """What a process left that was killed."""
    for left in folder.glob(f"{_STAGED}*"):
        shutil.rmtree(left)


def begin_history(folder: Path, message: str) -> None:
    """git and dvc init, and a first commit: training curves are kept against one.

    The user's hooks don't judge this commit, and what a global excludes file names is committed too. Where git can't sign
    it as the user's settings ask, it is made unsigned, and that is said.
    """
    _run(["git", "init", "--quiet"], folder)
    quiet = {"DVC_NO_ANALYTICS": "1"}  # it would send them before it is told not to
    _run([sys.executable, "-m", "dvc", "init", "--quiet"], folder, **quiet)
    _run([sys.executable, "-m", "dvc", "config", "core.analytics", "false"], folder)
    _run(["git", "-c", f"core.excludesFile={os.devnull}", "-c", "core.safecrlf=false", "add", "--all"], folder)
    commit = ["commit", "--quiet", "--no-verify", "-m", message]
    without_hooks = ["git", "-c", f"core.hooksPath={os.devnull}"]
    try:
        _run([*without_hooks, *commit], folder)
    except HistoloomError as error:
        _run([*without_hooks, "-c", "commit.gpgsign=false", *commit], folder)
        console.print(f"The first commit is unsigned, as git can't sign it: {error}", markup=False)


def surrounding_repository(folder: Path) -> Path | None:
    """The git work tree that a folder to be made would lie in, unless that tree ignores it."""
    there = next((parent for parent in folder.resolve().parents if parent.is_dir()), None)
    if there is None:
        return None
    top = _git(["rev-parse", "--show-toplevel"], there)
    ignored = _git(["check-ignore", "--quiet", str(folder.resolve())], there)
    return Path(top.stdout.strip()) if top.returncode == 0 and ignored.returncode != 0 else None


def _git(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    return _done(["git", *arguments], folder)


def _done(command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess:
    """A command that was run in a folder, with variables more than those of the user."""
    here = more | {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    nothing = subprocess.DEVNULL
    return subprocess.run(command, cwd=folder, env=here, stdin=nothing, capture_output=True, text=True, check=False)


def _identity(folder: Path) -> dict[str, str]:
    """A name and an address for the commit, where the user has stated none."""
    out: dict[str, str] = {}
    for key, value in (("NAME", "histoloom"), ("EMAIL", "histoloom@localhost")):
        if _git(["config", f"user.{key.lower()}"], folder).returncode:
            out |= {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER")}
    return out


def _run(command: list[str], folder: Path, **more: str) -> None:
    done = _done(command, folder, **_identity(folder), **more)
    if done.returncode:
        raise HistoloomError(f"'{' '.join(command)}' failed: {done.stderr.strip() or done.stdout.strip()}")
