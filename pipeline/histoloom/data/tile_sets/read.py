"""The pictures and masks of a set's tiles, as their files hold them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from histoloom.config import TileSet
from histoloom.config.tile_sets import SetFormat
from histoloom.data.tile_sets import arrays, parquet
from histoloom.data.tile_sets.listing import NONE, NotListed, their_column

Stored = bytes | np.ndarray | None
"""An encoded picture, an array (h, w[, c]), or None where there is none."""


class Unreadable(Exception):
    """A picture's bytes, or its array, can't be had: why."""


def read_stored(
    config: TileSet, form: SetFormat, files: tuple[Path, ...], rows: pd.DataFrame
) -> Iterator[tuple[Stored | Unreadable, Stored | Unreadable]]:
    """Picture and mask of each row, in their order; what can't be read is handed on as the reason.

    Parameters
    ----------
    rows : places as `Listing.places` has them, those of a file beside each other.
    """
    if form in ("parquet", "npz", "hdf5"):
        for number, mine in rows.groupby("file", sort=False):
            yield from _of_rows(config, form, files[number], mine)
        return
    with _OpenFiles(files) as opened:
        for row in rows.itertuples():
            picture = opened.read(row.file, row.at, row.size)
            yield picture, None if row.mask_file == NONE else opened.read(row.mask_file, row.mask_at, row.mask_size)


def _of_rows(config: TileSet, form: SetFormat, path: Path, rows: pd.DataFrame) -> Iterator[tuple]:
    reader = parquet if form == "parquet" else arrays
    at = rows["at"].to_numpy()
    order = np.argsort(at, kind="stable")
    if (order != np.arange(len(order))).any():
        raise AssertionError("rows of a file are read in its order")
    done, why = 0, "the file breaks off"
    try:
        names = _names(path, form)
        image, mask = their_column(config, "image", names), their_column(config, "mask", names)
        columns = tuple(name for name in (image, mask) if name in names)
        for values in reader.read_rows(path, at, columns):
            yield (values[0] if values[0] is not None else Unreadable("there is no picture")), (*values, None)[1]
            done += 1
    except (OSError, ValueError, pa.ArrowException, NotListed) as error:
        why = str(error)
    for _ in range(len(at) - done):
        yield Unreadable(why), None


def _names(path: Path, form: SetFormat) -> list[str]:
    if form == "parquet":
        return parquet.column_names(path)
    with arrays.open_arrays(path) as (shapes, _):
        return [*shapes]


class _OpenFiles:
    """Files that are read in pieces, the last one kept open: pieces of a tar lie beside each other."""

    def __init__(self, files: tuple[Path, ...]):
        self._files = files
        self._number, self._handle = NONE, NONE

    def __enter__(self) -> _OpenFiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._handle != NONE:
            os.close(self._handle)
        self._number, self._handle = NONE, NONE

    def read(self, number: int, at: int, size: int) -> bytes | Unreadable:
        """Bytes of a file; the whole file where the size is NONE."""
        try:
            if size == NONE:
                return self._files[number].read_bytes()
            if number != self._number:
                self._close()
                self._handle = os.open(self._files[number], os.O_RDONLY)
                self._number = number
            content = os.pread(self._handle, size, at)
        except OSError as error:
            return Unreadable(error.strerror or str(error))
        return content if len(content) == size else Unreadable("the file breaks off")
