"""Arrays that are mapped from files give the rows that arrays in memory give."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from histoloom.data.mapped import JoinedRows, discard_unpacked, mapped_arrays, unpacked_tiles
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from tests.build import make_part, tile_rows, tiles


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(sum), st.data())
def test_rows_of_joined_parts_are_those_of_their_concatenation(sizes, data):
    parts = [np.random.default_rng(n).integers(0, 99, (size, 2, 3)) for n, size in enumerate(sizes)]
    index = np.array(data.draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=9)), int)
    joined = JoinedRows(parts)
    assert joined.shape == (sum(sizes), 2, 3) and len(joined) == sum(sizes)
    assert (joined[index] == np.concatenate(parts)[index]).all()
    assert (joined[index, index % 2] == np.concatenate(parts)[index, index % 2]).all()


def test_a_mapped_file_gives_what_was_saved(tmp_path):
    saved = {"x": np.arange(12, dtype=np.float32).reshape(3, 4), "n": np.arange(3)}
    save_file(saved, tmp_path / "a.safetensors")
    read = mapped_arrays(tmp_path / "a.safetensors")
    assert set(read) == {"x", "n"} and all((read[name] == saved[name]).all() for name in saved)


@pytest.fixture
def store(tmp_path) -> TileStore:
    for name in "ab":
        make_part(str(tmp_path / "tiles"), name, tile_rows(3), tiles(3))
    return TileStore(tmp_path / "tiles")


def test_tiles_are_unpacked_in_the_order_of_rows_and_found_again_until_they_are_discarded(store, tmp_path, monkeypatch):
    rows, at = store.rows().iloc[[4, 0, 2]], tmp_path / "work/checkpoints/text"
    images, real = unpacked_tiles(store, rows, at), store.read(rows)
    assert isinstance(images, np.memmap) and images.mode == "c" and (images == real).all()
    corners = unpacked_tiles(store, rows, tmp_path / "work/checkpoints", lambda tiles: tiles[:, :2, :2, 0])
    assert (corners == real[:, :2, :2, 0]).all()
    assert len(unpacked_tiles(store, store.rows(), at)) == 6, "other rows are other tiles"
    other = unpacked_tiles(store, rows, tmp_path / "work/other")
    monkeypatch.setattr(TileStore, "read", None)
    assert (unpacked_tiles(store, rows, at) == real).all()
    discard_unpacked(tmp_path / "work/checkpoints")
    assert list((tmp_path / "work").rglob("*.npy")) == [Path(other.filename)], "of another training"


def test_a_full_disk_is_an_error_and_no_signal(store, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(HistoloomError, match="is full"):
        unpacked_tiles(store, store.rows(), tmp_path / "at")
    assert not list(tmp_path.rglob("*.npy"))
