"""Arrays mapped from files: a training set's tiles, and what `encode` wrote. Memory holds only the rows that are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.data.commit import commit_part, discard
from histoloom.data.store import TileStore

RowArrays = Mapping[str, "np.ndarray | JoinedRows"]
"""Arrays with a row for each tile, by name."""
AT_ONCE = 256
"""Tiles that are unpacked together."""
_BESIDE, _FILE = "-tiles", "tiles.npy"


class JoinedRows:
    """Arrays (n, ...) of several parts as one (sum of n, ...), in their order. Rows are read where it is indexed.

    again : opens it once more, in another process: (function, arguments). Without it the rows themselves are sent there.
    """

    def __init__(self, parts: Sequence[np.ndarray], again: tuple[Callable[..., JoinedRows], tuple] | None = None):
        self.parts, self.again = list(parts), again
        self.starts = np.cumsum([0, *map(len, self.parts)])
        self.shape = (int(self.starts[-1]), *self.parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __reduce__(self) -> tuple:
        return self.again or (JoinedRows, (self.parts,))

    def __getitem__(self, index: np.ndarray | tuple[np.ndarray, ...]) -> np.ndarray:
        """Rows of these numbers (b,), in memory: (b, ...). With further arrays (b,), of each row the place that they name, as numpy's."""
        rows, *places = index if isinstance(index, tuple) else (index,)
        out = np.empty((len(rows), *self.shape[1 + len(places) :]), self.parts[0].dtype)
        of = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(of):
            here = of == number
            out[here] = self.parts[number][(rows[here] - self.starts[number], *(place[here] for place in places))]
        return out


def mapped_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, mapped: of numpy's own reader, each would be a copy."""
    from safetensors.torch import load_file

    return {name: tensor.numpy() for name, tensor in load_file(path).items()}


def unpacked_tiles(
    store: TileStore, rows: pd.DataFrame, checkpoints: Path, change: Callable[[np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """The tiles of rows (n, h, w, 3), in a file that is mapped, for a training that reads them in any order.

    The file lies beside the training's checkpoints. A training that was broken off finds it again; `discard_unpacked` deletes it.

    Parameters
    ----------
    change : of a batch of tiles (b, h, w, 3), what is kept of them, (b, ...). One training has one.

    Raises
    ------
    HistoloomError
        when the disk is full.
    """
    folder, batches = checkpoints.with_name(checkpoints.name + _BESIDE), store.batches(rows, AT_ONCE)
    name = name_of_rows(rows, ("part", "index"))
    return mapped_rows(folder, name, len(rows), batches if change is None else map(change, batches))


def name_of_rows(rows: pd.DataFrame, columns: Sequence[str]) -> str:
    """A name that other rows, or rows in another order, don't have."""
    each = pd.util.hash_pandas_object(rows[[*columns]], index=False).to_numpy()
    return hashlib.sha256(each.tobytes()).hexdigest()[:16]


def mapped_rows(folder: Path, name: str, count: int, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Rows (count, ...) that come in batches, in a file that is mapped. What is written into them does not reach the file.

    Parameters
    ----------
    folder, name : of the part that the file lies in. A part that is there is not written again, and `batches` is not read.

    Raises
    ------
    HistoloomError
        when the disk is full.
    """

    def write(part: Path) -> None:
        out, done = None, 0
        for rows in batches:
            if out is None:
                out = np.lib.format.open_memmap(part / _FILE, "w+", rows.dtype, (count, *rows.shape[1:]))
                with (part / _FILE).open("r+b") as file:  # or a full disk would end the process as it writes to the map
                    os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))
            out[done : done + len(rows)] = rows
            done += len(rows)
        assert out is not None and done == count, "a training has rows"
        out.flush()

    commit_part(folder, name, write)
    return np.load(folder / name / _FILE, mmap_mode="c")  # whoever writes into it changes a copy of their own


def discard_unpacked(checkpoints: Path) -> None:
    """Delete the unpacked tiles of a training, and of those whose checkpoints are folders of this one."""
    for folder in (checkpoints.with_name(checkpoints.name + _BESIDE), *checkpoints.glob(f"*{_BESIDE}")):
        discard(folder)
