"""Parts and stores under whatever sequence of runs, crashes, racing writers and deletions.

Each run is a stage's own way: lock, work folder, commits, promotion. It may be killed between any two file operations.
The file system is real. A reader looks at each operation that touches a visible name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from histoloom.config import Params
from histoloom.data.commit import RECORD, commit_part, discard, read_record, sha256_file
from histoloom.data.store import TileStore
from histoloom.studies.stage_work import open_work
from histoloom.studies.stages import STAGES
from tests.build import make_part, tile_rows, tiles
from tests.stages import study_of

STAGE, NAMES = "sample", ("a", "b", "c")
_OPERATIONS = ("rename", "replace", "fsync", "mkdir", "unlink", "rmdir", "link", "chmod")
_LEFTOVERS = (".tmp-", ".gone-", ".new-", ".old-")

SOME_NAMES = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
MOMENT = st.none() | st.integers(0, 90)
"""The number of the file operation at which something happens."""


class Killed(BaseException):
    """The process is gone: of what it would still have done, nothing happens."""


class FileOperations:
    """The file operations of this process, counted.

    Parameters
    ----------
    look : called before each that touches a visible name, and after the last.
    killed_at : the number of the operation that doesn't happen any more.
    meanwhile : number of an operation to what another process does before it.
    """

    def __init__(
        self, look: Callable[[], None], killed_at: int | None = None, meanwhile: dict[int, Callable] | None = None
    ):
        self.look, self.killed_at, self.meanwhile = look, killed_at, meanwhile or {}
        self.count, self.dead, self._inside = 0, False, False
        self._lock = threading.Lock()  # `commit_part` syncs files in threads
        self.synced: set[tuple[int, int]] = set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        with mock.patch.multiple(os, **{name: self._wrapped(name, getattr(os, name)) for name in _OPERATIONS}):
            try:
                yield
            except Killed:
                assert self.dead
        self.look()

    def _wrapped(self, name: str, operation: Callable) -> Callable:
        def wrapped(*args, **kwargs):
            if not self._inside:  # by whoever looks, or another process
                with self._lock:
                    self._inside = True
                    try:
                        self._before(name, args, kwargs)
                    finally:
                        self._inside = False
            if name == "fsync":
                self.synced.add(_version(os.fstat(args[0])))
            return operation(*args, **kwargs)

        return wrapped

    def _before(self, name: str, args: tuple, kwargs: dict) -> None:
        self.dead |= self.count == self.killed_at
        if self.dead:
            raise Killed
        self.meanwhile.get(self.count, lambda: None)()
        self.count += 1
        if name == "rename" and (Path(args[0]) / RECORD).is_file():
            self._check_synced(Path(args[0]))
        paths = args[:2] if name in ("rename", "replace", "link") else args[:1]
        if name != "fsync" and not all(_hidden(path, kwargs.get("dir_fd")) for path in paths):
            self.look()

    def _check_synced(self, part: Path) -> None:
        """What gets a part's name is on the disk, so that no power cut leaves a part of empty files."""
        if not part.name.startswith(".tmp-"):
            return
        lost = [path for path in part.rglob("*") if path.is_file() and _version(path.stat()) not in self.synced]
        assert not lost, f"{lost} were not synced before {part} got its name"


def _version(found: os.stat_result) -> tuple[int, int]:
    return found.st_ino, found.st_mtime_ns


def _hidden(path: str | Path, dir_fd: int | None) -> bool:
    """Whether no reader looks at a path, because it is, or lies in, what is not whole yet or is being deleted."""
    if dir_fd is not None:
        path = Path(f"/proc/self/fd/{dir_fd}").resolve() / path
    return any(part.startswith(_LEFTOVERS) for part in Path(path).parts)


@cache
def made(name: str, version: int) -> dict[str, bytes]:
    """The files of a part of two tiles, which a version of params decides; its record is not among them."""
    with tempfile.TemporaryDirectory() as folder:
        make_part(folder, name, tile_rows(2, slide_id=name), images(name, version))
        return _files(Path(folder) / name)


def images(name: str, version: int) -> np.ndarray:
    return tiles(2, 4, NAMES.index(name) + 10 * version)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != RECORD
    }


Output = tuple[int, frozenset[str]] | None
"""A published store: the version of params and its parts; None where there is none."""


class Commits(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        for place in STAGES[STAGE].inputs:
            (self.root / place).mkdir(parents=True)
        self.version = self.version_of_parts = 0
        self.parts: Path | None = None
        self.committed: set[str] = set()
        self.outputs: set[Output] = {None}
        self.clean = True

    def teardown(self):
        shutil.rmtree(self.root)

    @property
    def study(self):
        tile = {"mpp": 1.0, "tile_px": 4, "stride_px": 4, "labels": {"source": "slide", "classes": ["tumour"]}}
        return study_of(Params.model_validate({"tile": tile, "sample": {"steps": 4 + self.version}}), self.root)

    def writer(self, name: str) -> Callable[[Path], dict]:
        def write(folder: Path) -> dict:
            for place, contents in made(name, self.version).items():
                (folder / place).parent.mkdir(parents=True, exist_ok=True)
                (folder / place).write_bytes(contents)
            return {"version": self.version}

        return write

    def run_stage(self, names: list[str]) -> None:
        if self.version != self.version_of_parts:
            self.committed = set()  # what other params made is discarded
        with open_work(STAGE, self.study) as work:
            self.parts, self.version_of_parts = work.parts, self.version
            for name in names:
                record = commit_part(work.parts, name, self.writer(name))
                assert record == read_record(work.parts / name)
                self.committed.add(name)
            self.outputs |= {(self.version, frozenset(names)), None}  # while one takes the other's place, there is none
            work.promote_parts(names, work.study.synthetic, {"lineage.json": {"version": self.version}})
            self.outputs = {(self.version, frozenset(names))}
            self.committed &= set(names)
            work.keep_parts(names)

    @rule(names=SOME_NAMES)
    def run(self, names):
        with FileOperations(self.look).watched():
            self.run_stage(names)
        self.clean = True

    @rule(names=SOME_NAMES, at=st.integers(0, 260))
    def run_and_be_killed(self, names, at):
        operations = FileOperations(self.look, killed_at=at)
        with operations.watched():
            self.run_stage(names)
        self.clean = not operations.dead
        self.outputs = {self.published()}

    @precondition(lambda self: self.parts and self.parts.is_dir() and self.version == self.version_of_parts)
    @rule(name=st.sampled_from(NAMES), at=st.integers(0, 40), killed=MOMENT)
    def two_write_one_part(self, name, at, killed):
        """A second task commits the part while the first is at work on it; the first may be killed before or after."""
        records = []

        def second() -> None:
            records.append(commit_part(self.parts, name, self.writer(name)))
            self.committed.add(name)

        first = FileOperations(self.look, killed, {at: second})
        with first.watched():
            records.append(commit_part(self.parts, name, self.writer(name)))
            self.committed.add(name)
        assert all(record == records[0] for record in records)
        self.clean &= not first.dead

    @precondition(lambda self: self.committed)
    @rule(data=st.data(), killed=MOMENT)
    def discard_a_part(self, data, killed):
        name = data.draw(st.sampled_from(sorted(self.committed)))
        self.committed.remove(name)
        operations = FileOperations(self.look, killed)
        with operations.watched():
            discard(self.parts / name)
        self.clean &= not operations.dead
        if not operations.dead:
            assert not (self.parts / name).exists()

    @rule()
    def change_params(self):
        self.version = 1 - self.version

    @precondition(lambda self: self.published() is not None)
    @rule()
    def read_tiles(self):
        version, names = self.published()
        store = TileStore(self.root / "data/synthetic")
        assert store.parts == sorted(names)
        np.testing.assert_array_equal(
            store.read(store.rows()), np.concatenate([images(n, version) for n in store.parts])
        )

    def look(self) -> None:
        """What whoever reads at this moment may rely on."""
        if self.parts is not None:
            whole = {part.name for part in self.parts.glob("[!.]*") if self.whole(part) is not None}
            assert self.committed <= whole, f"{self.committed - whole} were committed and are lost"
        assert self.published() in self.outputs

    def whole(self, part: Path) -> int | None:
        """The version of a part, which is whole and what its record says; None where there is no record."""
        if (record := read_record(part)) is None:
            return None
        assert record["files"] == {place: sha256_file(part / place) for place in record["files"]}
        version = record["info"]["version"]
        assert _files(part) == made(part.name, version)
        return version

    def published(self) -> Output:
        """The store as it is found; half a store is an error."""
        output = self.root / "data/synthetic"
        if not output.exists():
            return None
        names = {path.name for path in output.iterdir() if path.is_dir()}
        versions = {self.whole(output / name) for name in names}
        assert len(versions) == 1 and None not in versions
        assert {path.name for path in output.iterdir()} == names | {"lineage.json"}
        return versions.pop(), frozenset(names)

    @invariant()
    def nothing_is_half_or_lost(self):
        self.look()

    @invariant()
    def a_whole_run_leaves_nothing_lying_about(self):
        if self.clean:
            assert [p for p in self.root.rglob(".*") if p.name.startswith(_LEFTOVERS)] == []


Commits.TestCase.settings = settings(max_examples=25, stateful_step_count=12)
TestCommits = pytest.mark.long(Commits.TestCase)


@pytest.mark.long
def test_a_run_may_be_killed_at_each_of_its_operations():
    """One that publishes a store in another's place; whoever runs it again ends with the same store, and nothing else."""
    at, done = 0, False
    while not done:
        commits = Commits()
        try:
            commits.run(["a"])
            commits.change_params()
            commits.run_and_be_killed(["a"], at)
            done = commits.clean
            commits.run(["a"])
            commits.read_tiles()
            commits.a_whole_run_leaves_nothing_lying_about()
        except AssertionError as error:
            raise AssertionError(f"killed at operation {at}") from error
        finally:
            commits.teardown()
        at += 1
    assert at > 50, "the operations of a run are counted"
