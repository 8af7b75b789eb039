"""What every stage shares: its lock, its work folder, its promotion, and how it fails.

Work lands in `.work/STAGE/FINGERPRINT/`, outside the outputs that DVC deletes before a stage runs. The lock is held
by the process, so a stage that `dvc repro` left behind when it was killed still holds it.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histoloom.allocator import keep_freed_memory
from histoloom.cluster import Pool, device, open_pool, use_training_threads
from histoloom.config import Params
from histoloom.data.commit import digest, discard, hash_tree, link_tree, read_record, replace_tree, write_json
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.exit_codes import ends_in_words
from histoloom.progress import console, recorded
from histoloom.studies.code_identity import code_sha256
from histoloom.studies.named_files import resolved
from histoloom.studies.stages import STAGES, Stage, places

PROGRESS, HASHES = "progress.json", "hashes.json"
"""In a stage's work folder: how far it is, and the hashes of the files that it read when it was last done."""


@dataclass(frozen=True)
class Work:
    """One run of a stage.

    Parameters
    ----------
    root : the work folder; it stays until the stage's params, inputs or code change.
    """

    study: Study
    stage: Stage
    root: Path

    @property
    def params(self) -> Params:
        return self.study.params

    @property
    def parts(self) -> Path:
        """Holds what was committed."""
        return self.root / "parts"

    @property
    def reports(self) -> Path:
        return self.study.reports(self.stage.name)

    @property
    def code(self) -> str:
        """sha256 of the code that decides what the stage makes."""
        return code_sha256(self.stage.name, self.params)

    @property
    def device(self) -> str:
        """'cuda' or 'cpu', as cluster.yaml asks."""
        return device(self.study.cluster)

    def training_device(self) -> str:
        """The device, once torch may use as many threads as cluster.yaml grants to training."""
        use_training_threads(self.study.cluster)
        return self.device

    def pool(self, tasks: int) -> AbstractContextManager[Pool]:
        """Workers for so many tasks, as cluster.yaml says."""
        return open_pool(self.study.cluster, tasks=tasks, gpu=self.stage.gpu)

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        write_json(self.reports / "metrics.json", metrics)

    def promote_parts(self, names: list[str], output: Path | str, facts: dict[str, Any] | None = None) -> None:
        """Publish committed parts as a folder of parts, whole, with `facts` (file name to JSON) beside them."""
        staged = self._staging(output)
        for name in names:
            if read_record(self.parts / name) is None:
                raise HistoloomError(
                    f"Part '{name}' of stage '{self.stage.name}' was not committed; run the stage again."
                )
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
        for kind in (".new", ".old"):  # left by a run that was killed while it published
            for stale in output.parent.glob(f"{kind}-{output.name}-*"):
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
def open_work(name: str, study: Study) -> Iterator[Work]:
    """Take a stage's lock and open its work folder, keyed by params, inputs and code.

    Raises
    ------
    HistoloomError
        when an input is missing; it is named.
    """
    stage, folder = STAGES[name], study.work(name)
    missing = [place for place in _inputs(stage, study) if not (study.root / place).exists()]
    if missing:
        raise HistoloomError(f"Stage '{name}' needs {', '.join(missing)}, which is missing. Run: dvc repro {name}")
    with _lock(folder, name):
        root = folder / ("shared" if stage.keeps_parts else _fingerprint(stage, study))
        for other in folder.iterdir():
            if other.is_dir() and other != root:
                discard(other)
        (root / "parts").mkdir(parents=True, exist_ok=True)
        _clear_leftovers(root, study.reports(name))
        yield Work(study, stage, root)


def _clear_leftovers(*folders: Path) -> None:
    """Delete what a killed run of this stage was about to write or to delete."""
    for folder in folders:
        for stale in [*folder.rglob(".tmp-*"), *folder.rglob(".gone-*")]:
            shutil.rmtree(stale, ignore_errors=True) if stale.is_dir() else stale.unlink(missing_ok=True)


def _inputs(stage: Stage, study: Study) -> list[str]:
    """What a stage reads: of one of several models its own, else what all that are run have."""
    several = [study.model] if study.model else [name for name in study.stated.run_models if name]
    return places(stage.inputs, several)


def _fingerprint(stage: Stage, study: Study) -> str:
    """Of what a stage's work is made of: exactly what the stage states that it depends on."""
    keys = stage.keys(several=bool(study.stated.models))
    stated = resolved(study, keys) if keys else {}
    inputs = [hash_tree(study.root / place) for place in _inputs(stage, study)]
    return digest({"params": stated, "code": code_sha256(stage.name, study.params), "inputs": inputs})[:16]


def run_stage(name: str, study: Study | None = None, model: str | None = None) -> None:
    """Run one stage of a study, of the one in the working directory if none is given.

    model : of several, the one that it is run for; unstated, a stage that every model has is run for each.

    Raises
    ------
    HistoloomError
        for a model that params don't state, or a stage that all models share.
    """
    study = study or Study()
    models = study.params.models  # where there is no study, this says so before anything is written
    if model is not None and (model not in models or not STAGES[name].per_model):
        known = (
            f"its models are {', '.join(models) or 'not named'}" if STAGES[name].per_model else "all models share it"
        )
        raise HistoloomError(f"Stage '{name}' can't be run for the model '{model}': {known}.")
    module = importlib.import_module(f"histoloom.studies.{name}")
    for each in ([model] if model else models) if STAGES[name].per_model and models else [""]:
        own = study.of(each) if each else study
        with open_work(name, own) as work, recorded(own.work(name) / PROGRESS), _hashes_kept(work):
            module.run(work)


@contextmanager
def _hashes_kept(work: Work) -> Iterator[None]:
    """Keep the hashes that `resolve` found, where the stage reads files that params name. `histoloom status` tells by them which file
    changed."""
    known = work.study.hashes
    if not any(key.startswith("files.") for key in work.stage.params) or not known.is_file():
        yield
        return
    kept = work.study.work(work.stage.name) / HASHES
    begun = kept.with_name(f".begun-{kept.name}")
    begun.unlink(missing_ok=True)
    try:
        os.link(known, begun)  # the file is replaced as a whole, never written into
    except OSError:
        shutil.copy2(known, begun)
    yield
    begun.replace(kept)


def main(name: str, model: str | None = None) -> None:
    """Run a stage as a process, whose exit code says how it ended."""
    keep_freed_memory()
    with ends_in_words("Run `dvc repro` to go on from there."):
        run_stage(name, model=model)
