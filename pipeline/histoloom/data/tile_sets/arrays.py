"""Pictures that are arrays of an .npz or an HDF5 file: images (n, h, w, 3) uint8, masks (n, h, w), volumes (n, d, h, w), and
values a picture."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histoloom.config import TileSet
from histoloom.data.tile_sets.listing import Listing, NotListed, rows_of, texts, their_column

_AT_ONCE = 64
Read = Callable[[str, int, int], np.ndarray]
"""Name, start and end of rows to an array."""
Shapes = dict[str, tuple[tuple[int, ...], np.dtype]]
VOLUME = "volume"


def list_arrays(config: TileSet, files: list[Path]) -> Listing:
    """The pictures of files of arrays, in their order."""
    found, depths = [], set[int]()
    for path in files:
        with open_arrays(path) as (shapes, read):
            image, mask = (their_column(config, ours, shapes) for ours in ("image", "mask"))
            count = _check(path, shapes, image, mask)
            depth = _check_volumes(path, shapes, volume_column(config, shapes), shapes[image or ""][0][:3])
            if depths and depths != {depth}:
                raise NotListed(f"{path.name} has other volumes than the files before it.", "make them alike.")
            depths.add(depth)
            lists = [name for name, (shape, _) in shapes.items() if shape == (count,)]
            table = pd.DataFrame({n: texts(_decoded(read(n, 0, count))) for n in lists}, index=range(count))
        found.append(([f"{row}" for row in range(count)], table, mask is not None))
    return rows_of(config, files, found)


def _decoded(values: np.ndarray) -> list:
    try:
        return [value.decode("utf-8") if isinstance(value, bytes) else value for value in values.tolist()]
    except UnicodeDecodeError as error:
        raise NotListed(f"it holds text that is no UTF-8 ({error}).", "write its text as UTF-8.") from None


def _check(path: Path, shapes: Shapes, image: str | None, mask: str | None) -> int:
    """How many pictures there are, all of which can be read exactly."""
    has = ", ".join(f"{name} {shape} {dtype}" for name, (shape, dtype) in shapes.items()) or "nothing"
    if image is None or image not in shapes:
        name = image or "images"
        raise NotListed(f"{path.name} has no array '{name}'; it has {has}.", "name it: columns: {image: ...}.")
    shape, dtype = shapes[image]
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3, 4))) or dtype != np.uint8:
        wanted = "pictures are (n, height, width, 3) of uint8, or (n, height, width) of grey"
        remedy = "write the array so: channels last, three of them, scaled to 0 to 255 by a rule of yours."
        raise NotListed(f"{path.name}: '{image}' is {shape} of {dtype}, and {wanted}.", remedy)
    if mask is None:
        return shape[0]
    if mask not in shapes:
        raise NotListed(f"{path.name} has no array '{mask}'; it has {has}.", "mend columns.mask.")
    of_masks, kind = shapes[mask]
    if of_masks != shape[:3] or kind.kind not in "ub":
        wanted = f"masks of these pictures are {shape[:3]} of unsigned ids"
        raise NotListed(f"{path.name}: '{mask}' is {of_masks} of {kind}, and {wanted}.", "write it so.")
    return shape[0]


def volume_column(config: TileSet, shapes: Shapes) -> str | None:
    """The array of volumes; one that isn't named in params has four axes, as there may be a column of numbers that are called so."""
    name = their_column(config, VOLUME, shapes)
    return name if VOLUME in config.columns or len(shapes.get(name or "", ((),))[0]) == 4 else None


def _check_volumes(path: Path, shapes: Shapes, name: str | None, pictures: tuple[int, ...]) -> int:
    """How many sections a picture's volume has; 0 where there is none."""
    if name is None:
        return 0
    shape, kind = shapes.get(name, ((), np.dtype(np.uint8)))
    n, h, w = pictures
    if len(shape) != 4 or (shape[0], *shape[2:]) != (n, h, w) or kind != np.uint8:
        problem = f"'{name}' is {shape} of {kind}, and volumes of these pictures are ({n}, depth, {h}, {w}) of uint8"
        raise NotListed(f"{path.name}: {problem}.", "write it so, or mend columns.volume.")
    return shape[1]


def read_rows(path: Path, rows: np.ndarray, columns: tuple[str, ...]) -> Iterator[tuple[np.ndarray, ...]]:
    """The arrays of these rows, sorted, a tuple of the columns' each; few are held at once."""
    with open_arrays(path) as (_, read):
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            low, high = int(some[0]), int(some[-1]) + 1
            if high - low > 4 * _AT_ONCE:
                yield from (tuple(read(name, int(row), int(row) + 1)[0] for name in columns) for row in some)
                continue
            blocks = [read(name, low, high) for name in columns]
            yield from (tuple(block[row - low] for block in blocks) for row in some)


def open_arrays(path: Path) -> AbstractContextManager[tuple[Shapes, Read]]:
    """The shapes and types of a file's arrays, and what reads rows of them.

    Raises
    ------
    NotListed
        when it is none, or holds objects.
    """
    return _npz(path) if path.suffix.lower() == ".npz" else _hdf5(path)


@contextmanager
def _hdf5(path: Path) -> Iterator[tuple[dict, Read]]:
    import h5py  # here, as it loads a library that few studies need

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise NotListed(f"{path.name} is no HDF5 file, or breaks off ({error}).", "copy it again.") from None
    with file:
        arrays: dict[str, Any] = {}

        def visit(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim:
                arrays[name] = item

        file.visititems(visit)
        yield {name: (item.shape, item.dtype) for name, item in arrays.items()}, lambda name, a, b: arrays[name][a:b]


@contextmanager
def _npz(path: Path) -> Iterator[tuple[dict, Read]]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise NotListed(f"{path.name} is no .npz file, or breaks off ({error}).", "copy it again.") from None
    with archive:
        members = {name.removesuffix(".npy"): name for name in archive.namelist() if name.endswith(".npy")}
        open_ones: dict[str, _NpzArray] = {}
        try:
            shapes = {}
            for name, member in members.items():
                open_ones[name] = _NpzArray(archive, member)
                if open_ones[name].shape:
                    shapes[name] = open_ones[name].shape, open_ones[name].dtype
            yield shapes, lambda name, a, b: open_ones[name].read(a, b)
        except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise NotListed(
                f"{path.name} can't be read ({error}).", "write it with numpy.savez, without objects."
            ) from None
        finally:
            for each in open_ones.values():
                each.close()


class _NpzArray:
    """An array of an .npz, of which rows are read without the rest; going back begins anew."""

    def __init__(self, archive: zipfile.ZipFile, member: str):
        self._archive, self._member = archive, member
        self._open()

    def _open(self) -> None:
        self._stream = self._archive.open(self._member)
        version = np.lib.format.read_magic(self._stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, fortran, self.dtype = read(self._stream)
        if self.dtype.hasobject:
            raise ValueError(f"{self._member} holds objects")
        if fortran and len(self.shape) > 1:
            raise ValueError(f"{self._member} is in Fortran's order")
        self._row = 0

    def read(self, start: int, end: int) -> np.ndarray:
        size = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        if start < self._row:
            self._stream.close()
            self._open()
        self._skip((start - self._row) * size)
        content = self._stream.read((end - start) * size)
        self._row = end
        if len(content) < (end - start) * size:
            raise ValueError(f"{self._member} breaks off")
        return np.frombuffer(content, self.dtype).reshape(end - start, *self.shape[1:])

    def _skip(self, size: int) -> None:
        while size > 0:
            taken = len(self._stream.read(min(size, 2**24)))
            if not taken:
                raise ValueError(f"{self._member} breaks off")
            size -= taken

    def close(self) -> None:
        self._stream.close()
