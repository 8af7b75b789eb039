"""A part is written once and whole, whatever goes wrong."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from histoloom.data.commit import (
    RECORD,
    commit_part,
    digest,
    discard,
    hash_tree,
    link_tree,
    read_record,
    replace_tree,
    sha256_file,
    write_json,
)
from histoloom.data.store import TileWriter, cut_arrays
from histoloom.errors import HistoloomError
from tests.build import tiles


def _write_tree(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def _write(folder: Path, text: str = "tile") -> dict:
    _write_tree(folder, {"a.bin": text, "deep/er/b.bin": text * 2})
    return {"tiles": 2}


def test_a_part_holds_its_files_and_a_record_of_them(tmp_path):
    record = commit_part(tmp_path, "p", _write)
    assert record == read_record(tmp_path / "p")
    assert record["info"] == {"tiles": 2}
    assert record["files"] == {n: sha256_file(tmp_path / "p" / n) for n in ("a.bin", "deep/er/b.bin")}
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def test_a_second_commit_returns_the_record_and_writes_nothing(tmp_path):
    first = commit_part(tmp_path, "p", _write)
    before = (tmp_path / "p/a.bin").stat()

    def must_not_run(folder):
        raise AssertionError("written again")

    assert commit_part(tmp_path, "p", must_not_run) == first
    assert (tmp_path / "p/a.bin").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), OSError(5, "input/output error")])
def test_what_goes_wrong_in_writing_leaves_no_part(tmp_path, error):
    def write(folder):
        _write(folder)
        raise error

    with pytest.raises(type(error)):
        commit_part(tmp_path, "p", write)
    assert list(tmp_path.iterdir()) == []
    assert commit_part(tmp_path, "p", _write)["info"] == {"tiles": 2}


@pytest.mark.parametrize("left", [["a.bin"], [RECORD], []])
def test_a_deletion_that_is_broken_off_leaves_no_part(tmp_path, monkeypatch, left):
    """Whatever of a part was not deleted yet is taken for nothing, and the part can be made again."""
    commit_part(tmp_path, "p", _write)

    def broken_off(folder, ignore_errors=False):
        for file in [p for p in folder.rglob("*") if p.is_file() and p.name not in left]:
            file.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("histoloom.data.commit.shutil.rmtree", broken_off)
        discard(tmp_path / "p")
    assert read_record(tmp_path / "p") is None
    record = commit_part(tmp_path, "p", _write)
    assert record["info"] == {"tiles": 2} and (tmp_path / "p/a.bin").read_text() == "tile"


def test_what_has_a_part_s_name_and_no_record_gives_way(tmp_path):
    _write_tree(tmp_path / "p", {"a.bin": "left by an earlier version's broken deletion"})
    assert commit_part(tmp_path, "p", _write)["info"] == {"tiles": 2}
    assert (tmp_path / "p/a.bin").read_text() == "tile" and [p.name for p in tmp_path.iterdir()] == ["p"]


def _die(root: str) -> None:
    def write(folder):
        _write(folder)
        os._exit(9)

    commit_part(Path(root), "p", write)


def test_what_a_killed_process_leaves_is_no_part(tmp_path):
    process = multiprocessing.get_context("spawn").Process(target=_die, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == 9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".tmp-p-") and read_record(left) is None and read_record(tmp_path / "p") is None
    commit_part(tmp_path, "p", _write)
    assert read_record(tmp_path / "p") is not None


def _race(root: str, barrier, records) -> None:
    def write(folder):
        barrier.wait(30)  # neither has committed when both begin to write
        return _write(folder)

    records.put(commit_part(Path(root), "p", write))


def test_two_processes_that_race_make_one_part(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, records = context.Barrier(2), context.Queue()
    racers = [context.Process(target=_race, args=(str(tmp_path), barrier, records)) for _ in range(2)]
    for racer in racers:
        racer.start()
    found = [records.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0, 0]
    assert found[0] == found[1] == read_record(tmp_path / "p")
    assert [p.name for p in tmp_path.iterdir()] == ["p"]


def _fill_dev_full(folder: Path) -> None:
    _write(folder)
    with Path("/dev/full").open("wb", buffering=0) as stream:
        stream.write(b"x")


def _fill_disk(folder: Path) -> None:
    (folder / "big").write_bytes(bytes(1 << 20))


def _fill_disk_with_tiles(folder: Path) -> None:
    with TileWriter(folder, cut_arrays(64)) as writer:
        for tile in tiles(100, 64):
            writer.add(image=tile)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", disk], check=True)


def _full_disk_keeps_what_was_committed(root: Path, fill) -> None:
    commit_part(root, "first", _write)
    with pytest.raises(HistoloomError, match=r"part 'second' was not written.*Make room and run"):
        commit_part(root, "second", fill)
    assert [p.name for p in root.iterdir()] == ["first"]
    assert commit_part(root, "second", _write)["info"] == {"tiles": 2}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_said_and_keeps_what_was_committed(tmp_path):
    _full_disk_keeps_what_was_committed(tmp_path, _fill_dev_full)


@pytest.mark.parametrize("fill", [_fill_disk, _fill_disk_with_tiles])
def test_a_full_disk_is_said_and_keeps_what_was_committed(small_disk, fill):
    _full_disk_keeps_what_was_committed(small_disk, fill)


TREE = {"a": "1", "b/c": "2", "b/d": "3"}


@pytest.mark.parametrize(
    "changed",
    [TREE | {"a": "9"}, TREE | {"b/e": ""}, {"a": "1", "b/c": "2"}, {"a2": "1", "b/c": "2", "b/d": "3"}],
    ids=["contents", "more", "less", "renamed"],
)
def test_a_tree_s_hash_follows_names_and_contents(tmp_path, changed):
    tree = _write_tree(tmp_path / "one", TREE)
    same = _write_tree(tmp_path / "two", dict(reversed(TREE.items())))
    assert hash_tree(tree) == hash_tree(same) != hash_tree(_write_tree(tmp_path / "three", changed))
    (same / ".hidden").write_text("x")
    assert hash_tree(tree) == hash_tree(same)


def test_a_part_s_record_stands_for_its_files(tmp_path):
    commit_part(tmp_path / "one", "p", _write)
    commit_part(tmp_path / "two", "p", _write)
    commit_part(tmp_path / "three", "p", lambda folder: _write(folder, "other"))
    one, two, three = (hash_tree(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two != three
    assert hash_tree(tmp_path / "one/p") == sha256_file(tmp_path / "one/p" / RECORD)


def test_digest_does_not_depend_on_key_order():
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


@pytest.mark.parametrize("before", [None, {"old": "x"}, "file"])
def test_replacing_a_tree_leaves_the_new_one_alone(tmp_path, before):
    target = tmp_path / "out"
    if before == "file":
        target.write_text("old")
    elif before:
        _write_tree(target, before)
    new = tmp_path / "new"
    link_tree(_write_tree(tmp_path / "source", TREE), new)
    replace_tree(new, target)
    assert hash_tree(target) == hash_tree(tmp_path / "source")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source"]


@pytest.mark.parametrize("mask", [0o022, 0o007, 0o077])
def test_a_published_file_is_read_by_whom_the_umask_lets(tmp_path, mask):
    before = os.umask(mask)
    try:
        new = tmp_path / "new"
        new.mkdir()
        save_file({"a": np.zeros(1)}, new / "a.safetensors")
        (new / "a.txt").write_text("a")
        replace_tree(new, tmp_path / "kept")
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "kept").iterdir()} == {0o666 & ~mask}


def test_json_is_written_whole_and_alone(tmp_path):
    for value in ({"n": 1}, {"n": 2, "path": Path("x")}):
        write_json(tmp_path / "deep/f.json", value)
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["f.json"]
    assert (tmp_path / "deep/f.json").read_text() == '{\n  "n": 2,\n  "path": "x"\n}\n'
