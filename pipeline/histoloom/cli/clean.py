"""`histoloom clean`: what of a study's work folder no stage needs any more, how large it is, and away with it."""

from __future__ import annotations

import fcntl
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from histoloom.data.commit import discard
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.progress import results
from histoloom.studies.dvc_yaml import outputs
from histoloom.studies.stage_state import ALWAYS, StageState, stage_states
from histoloom.studies.stages import STAGES

_BROKEN_OFF = (".tmp-*", ".gone-*", ".begun-*")
_UNPUBLISHED = (".new", ".old")
"""Beside outputs: what a stage that was killed was about to publish, and what it replaced."""


@dataclass(frozen=True)
class Spare:
    """What may go.

    where : the stage or the folder that it is of. size : bytes that are freed; a file that has another name frees none.
    """

    path: Path
    where: str
    what: str
    size: int


def clean(study: Study, *, parts: bool, yes: bool, dry_run: bool) -> None:
    """List what may go; delete it when that is confirmed.

    parts : also what lets stages that are done redo no more than what changed.

    Raises
    ------
    HistoloomError
        when nobody is there to confirm.
    """
    found = [each for each in spare(study, parts=parts) if each.size]
    rows: dict[tuple[str, str], int] = {}
    for each in found:
        rows[each.where, each.what] = rows.get((each.where, each.what), 0) + each.size
    for (where, what), size in rows.items():
        results.print(f"{_size(size):>10}  {where}: {what}", markup=False)
    if not found:
        results.print(
            "Nothing to clean."
            + ("" if parts else " With --parts, more may go: parts that let a stage redo only what changed.")
        )
        return
    results.print(f"{_size(sum(rows.values())):>10}  in all")
    if dry_run:
        return
    if not yes and not sys.stdin.isatty():
        raise HistoloomError("Nobody is there to confirm. Add --yes to delete what is listed, or --dry-run.")
    if yes or click.confirm("Delete this? Outputs, DVC's cache and your own files stay."):
        _delete(study, found)


def spare(study: Study, *, parts: bool) -> Iterator[Spare]:
    """What no stage needs: of stages that are done their work, of all that don't run what a kill left behind."""
    states = {state.name: state for state in stage_states(study)}
    wanted = [*_resumed(study)]
    for folder in sorted(path for path in (study.root / ".work").glob("*") if path.is_dir()):
        name = folder.name
        if name in states and states[name].state == "running":
            continue
        for path, what in _of_folder(folder, states.get(name), parts=parts):
            if not any(path.resolve() in (each, *each.parents) for each in wanted):
                yield Spare(path, name, what, _freed(path))
    if not any(state.state == "running" for state in states.values()):
        for place in _outputs(study):
            for path in [path for kind in _UNPUBLISHED for path in place.parent.glob(f"{kind}-{place.name}-????????")]:
                yield Spare(path, place.name, "unfinished output of a stage that was killed", _freed(path))


def _of_folder(folder: Path, state: StageState | None, *, parts: bool) -> Iterator[tuple[Path, str]]:
    """What may go of one folder in .work, and why."""
    if folder.name == ALWAYS:
        return
    if state is None:
        yield folder, "work of a stage or model that dvc.yaml no longer names"
        return
    inside = [path for path in folder.iterdir() if path.is_dir()]
    if state.state != "done":
        yield from (
            (path, "unfinished files of a run that was killed") for kind in _BROKEN_OFF for path in folder.rglob(kind)
        )
    elif not STAGES[folder.name.partition("@")[0]].keeps_parts:
        yield from ((path, "parts and checkpoints, which a finished stage no longer needs") for path in inside)
    elif parts:
        yield from ((path, "parts. Without them, a change makes the stage redo everything") for path in inside)
    else:
        old = [path for path in inside if path.name != "shared"]
        old += [path for whole in inside for path in whole.iterdir() if path.is_dir() and path.name != "parts"]
        yield from ((path, "parts of earlier runs, which its output does not hold") for path in old)


def _resumed(study: Study) -> Iterator[Path]:
    """Checkpoints that params name to go on from."""
    for params in (study.params, *(own.params for own in study.run_models.values())):
        for source in (params.train_autoencoder.resume_from, params.train_denoiser.resume_from):
            if source is not None:
                yield Path(source).resolve()


def _outputs(study: Study) -> Iterator[Path]:
    for stage in STAGES.values():
        yield from (study.root / place for place in outputs(stage, tuple(study.stated.models)))


def _freed(path: Path) -> int:
    """Bytes that go with a file or a folder. A file that has another name beside it stays on the disk."""
    files = (
        [path] if not path.is_dir() or path.is_symlink() else [each for each in path.rglob("*") if not each.is_dir()]
    )
    return sum(found.st_blocks * 512 for found in (each.lstat() for each in files) if found.st_nlink == 1)


def _delete(study: Study, found: list[Spare]) -> None:
    """Delete what was listed, but for the work of stages that began meanwhile."""
    size = 0
    for each in found:
        lock = study.root / ".work" / each.where / "lock"
        if not lock.exists():
            size += _gone(each)
            continue
        with lock.open() as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                results.print(f"{each.where} runs now: its files are kept.", markup=False)
                continue
            size += _gone(each)
    results.print(f"{_size(size)} freed.")


def _gone(each: Spare) -> int:
    if each.path.is_dir() and not each.path.is_symlink():
        discard(each.path)
    else:
        each.path.unlink(missing_ok=True)
    return each.size


def _size(count: float) -> str:
    """Bytes in words, such as '1.2 GB'."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
