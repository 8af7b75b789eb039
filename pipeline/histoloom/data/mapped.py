"""Arrays that are mapped from files, so that memory holds what is asked for alone: a training set's tiles, and what `encode` wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from histoloom.data.commit import commit_part, discard
from histoloom.data.store import TileStore

RowArrays = Mapping[str, "np.ndarray | JoinedRows"]
"""Arrays with a row for each tile, by name."""
_AT_ONCE = 256
_UNPACKED, _FILE = "tiles", "tiles.npy"


class JoinedRows:
    """Arrays (n, ...) of several parts as one (sum of n, ...), in their order. Rows are read where it is indexed."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self.parts = list(parts)
        self.starts = np.cumsum([0, *map(len, self.parts)])
        self.shape = (int(self.starts[-1]), *self.parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """Rows of these numbers (b,), in memory: (b, ...)."""
        out = np.empty((len(index), *self.shape[1:]), self.parts[0].dtype)
        of = np.searchsorted(self.starts, index, side="right") - 1
        for number in np.unique(of):
            here = of == number
            out[here] = self.parts[number][index[here] - self.starts[number]]
        return out


def mapped_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, mapped: of numpy's own reader, each would be a copy."""
    return {name: tensor.numpy() for name, tensor in load_file(path).items()}


@contextmanager
def unpacked_tiles(
    store: TileStore, rows: pd.DataFrame, folder: Path, change: Callable[[np.ndarray], np.ndarray] | None = None
) -> Iterator[np.ndarray]:
    """The tiles of rows (n, h, w, 3), in a file of `folder` that is mapped, for a training that reads them in any order.

    The file goes when the training ends well. One that was broken off finds it again.

    Parameters
    ----------
    change : of a batch of tiles (b, h, w, 3), what is kept of them, (b, ...).

    Raises
    ------
    HistoloomError
        when the disk is full.
    """

    def write(part: Path) -> None:
        out, done = None, 0
        for tiles in store.batches(rows, _AT_ONCE):
            kept = tiles if change is None else change(tiles)
            if out is None:
                out = np.lib.format.open_memmap(part / _FILE, "w+", kept.dtype, (len(rows), *kept.shape[1:]))
            out[done : done + len(kept)] = kept
            done += len(kept)
        assert out is not None, "a training has rows"
        out.flush()

    commit_part(folder, _UNPACKED, write)
    yield np.load(folder / _UNPACKED / _FILE, mmap_mode="c")
    discard(folder / _UNPACKED)
