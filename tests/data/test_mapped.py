"""Arrays that are mapped from files give the rows that arrays in memory give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from histoloom.data.mapped import JoinedRows, mapped_arrays, unpacked_tiles
from histoloom.data.store import TileStore
from tests.build import make_part, tile_rows, tiles


@given(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(sum), st.data())
def test_rows_of_joined_parts_are_those_of_their_concatenation(sizes, data):
    parts = [np.random.default_rng(n).integers(0, 99, (size, 2, 3)) for n, size in enumerate(sizes)]
    index = np.array(data.draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=9)), int)
    joined = JoinedRows(parts)
    assert joined.shape == (sum(sizes), 2, 3) and len(joined) == sum(sizes)
    assert (joined[index] == np.concatenate(parts)[index]).all()


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


def test_tiles_are_unpacked_in_the_order_of_rows_and_gone_after_a_training(store, tmp_path):
    rows = store.rows().iloc[[4, 0, 2]]
    with unpacked_tiles(store, rows, tmp_path / "at") as images:
        assert isinstance(images, np.memmap) and (images == store.read(rows)).all()
    assert not any((tmp_path / "at").iterdir())
    with unpacked_tiles(store, rows, tmp_path / "at", lambda tiles: tiles[:, :2, :2, 0]) as corners:
        assert (corners == store.read(rows)[:, :2, :2, 0]).all()


def test_a_training_that_was_broken_off_finds_its_tiles_again(store, tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt), unpacked_tiles(store, store.rows(), tmp_path / "at") as images:
        first = images[:].copy()
        raise KeyboardInterrupt
    monkeypatch.setattr(TileStore, "read", None)
    with unpacked_tiles(store, store.rows(), tmp_path / "at") as images:
        assert (images == first).all()
