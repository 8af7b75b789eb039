"""Volumes of a set's tiles: a further array of its files, (n, d, h, w) uint8, whose sections lie over the pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from histoloom.config import TileSet
from histoloom.config.tile_sets import SetFormat
from histoloom.data.store import ArraySpec
from histoloom.data.tile_sets.arrays import VOLUME, open_arrays, volume_column


class Volumes:
    """Those of a part. spec : the array that each of its tiles has; None where the set has none."""

    def __init__(self, config: TileSet, files: tuple[Path, ...], stack: ExitStack):
        opened = [stack.enter_context(open_arrays(path)) for path in files]
        names = [volume_column(config, shapes) for shapes, _ in opened]
        self._readers = [(name, read) for name, (_, read) in zip(names, opened) if name is not None]
        found = [shapes[name] for name, (shapes, _) in zip(names, opened) if name is not None]
        self.spec = ArraySpec(VOLUME, found[0][0][1:], str(found[0][1])) if found else None

    def read(self, file: int, row: int) -> np.ndarray:
        """(d, h, w) uint8 of a row of a file; rows in their order are read once."""
        name, read = self._readers[file]
        return read(name, row, row + 1)[0]


@contextmanager
def volumes(config: TileSet, form: SetFormat, files: tuple[Path, ...]) -> Iterator[Volumes]:
    """The volumes of files of arrays; other forms of sets have none."""
    with ExitStack() as stack:
        yield Volumes(config, files if form in ("npz", "hdf5") else (), stack)
