"""The tile store, the one form of real and synthetic tiles: a folder of parts, each written once and whole.

`PART/rows.parquet` has a row for each tile, and `PART/images.zarr` its arrays, one tile a chunk, many chunks a shard (more of
them where a part is of a set of tiles, so that its files are few). Each array is declared by an `ArraySpec`. Those of tiles that
are cut from slides, or are of a set:

- `image` (n, h, w, 3) uint8;
- `mask` (n, h, w) uint8, class ids, where there are masks; all UNKNOWN where nobody says what a tile shows (`masked` is false);
- `instance` (n, h, w) int32 and `edge` (n, h, w) uint8, where nuclei are told apart: their numbers, and their outlines as the
  whole slide shows them;
- `partner` (n, h, w, 3) uint8, the same place on the slide that slides.csv states as the partner;
- `volume` (n, d, h, w) uint8, where a set of tiles has volumes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import zarr
from zarr.codecs import ZstdCodec

from histoloom.data.commit import RECORD
from histoloom.errors import HistoloomError

ROWS = "rows.parquet"
UNKNOWN = 255
SHARD_TILES = 128
_AT_ONCE = {"codec_pipeline.batch_size": 64}  # one tile at a time, zarr's own bookkeeping costs more than zstd
_ZSTD_LEVEL = -1  # stained tissue is noise to a compressor: level 1 saves 3 % more for three times the time
_CUT: dict[str, tuple[str, tuple[int, ...]]] = {
    "image": ("uint8", (3,)),
    "mask": ("uint8", ()),
    "instance": ("int32", ()),
    "edge": ("uint8", ()),
    "partner": ("uint8", (3,)),
}


@dataclass(frozen=True)
class ArraySpec:
    """An array of a store. shape : of one tile's. dtype : as numpy names it."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def cut_arrays(tile_px: int, names: Iterable[str] = ("image",)) -> tuple[ArraySpec, ...]:
    """The arrays `image`, `mask`, `instance`, `edge` and `partner` of square tiles, those that are named."""
    return tuple(ArraySpec(name, (tile_px, tile_px, *_CUT[name][1]), _CUT[name][0]) for name in names)


def specs_of(arrays: Mapping[str, np.ndarray]) -> tuple[ArraySpec, ...]:
    """The specs of arrays with a tile each in their first axis."""
    return tuple(ArraySpec(name, values.shape[1:], str(values.dtype)) for name, values in arrays.items())


class TileWriter:
    """Writes one part's arrays, whole shards at a time; only one process may write a part.

    A thread of its own compresses and writes a shard while the caller makes the next; at most two are held. Use it as
    a context manager: leaving it writes the rest.

    Parameters
    ----------
    folder : the part's folder.
    arrays : those that each tile has.
    shard_tiles : how many tiles a file holds.
    """

    def __init__(self, folder: Path, arrays: Sequence[ArraySpec], shard_tiles: int = SHARD_TILES):
        group = zarr.create_group(folder / "images.zarr")
        self._shard_tiles = shard_tiles
        self._arrays = {spec.name: _create(group, spec, shard_tiles) for spec in arrays}
        self._pending: dict[str, list[np.ndarray]] = {name: [] for name in self._arrays}
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tile-writer")
        self._writing: Future | None = None
        self.count = 0

    def __enter__(self) -> TileWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
                self._wait()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def add(self, **tiles: np.ndarray) -> None:
        """Add one tile's arrays by name, shaped as declared. They must not be changed afterwards."""
        for name, tile in tiles.items():
            self._pending[name].append(tile)
        self.count += 1
        if self.count % self._shard_tiles == 0:
            self._write_pending()

    def finish(self) -> None:
        """Begin to write the last shard, while the caller has other things to do. Nothing can be added afterwards."""
        self._write_pending()

    def _write_pending(self) -> None:
        self._wait()
        self._writing = self._pool.submit(self._write, self._pending)
        self._pending = {name: [] for name in self._arrays}

    def _write(self, tiles: dict[str, list[np.ndarray]]) -> None:
        with zarr.config.set(_AT_ONCE):
            for name, array in self._arrays.items():
                if tiles[name]:
                    array.append(np.stack(tiles[name]))

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()


def _create(group: zarr.Group, spec: ArraySpec, shard_tiles: int) -> zarr.Array:
    return group.create_array(
        spec.name,
        shape=(0, *spec.shape),
        dtype=spec.dtype,
        chunks=(1, *spec.shape),
        shards=(shard_tiles, *spec.shape),
        compressors=ZstdCodec(level=_ZSTD_LEVEL),
        config={"write_empty_chunks": True},  # looking for empty tiles costs as much as compressing them
    )


def write_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Write a part of arrays with a tile each in their first axis; how many tiles it has."""
    with TileWriter(folder, specs_of(arrays)) as writer:
        for tiles in zip(*arrays.values()):
            writer.add(**dict(zip(arrays, tiles)))
        return {"tiles": writer.count}


class TileStore:
    """Reads a store. `rows` may come from elsewhere: the filter's verdicts are rows over another store's images.

    Raises
    ------
    HistoloomError
        when the folder holds no committed part, or a part lost its record.
    """

    def __init__(self, folder: Path | str, rows_from: Path | str | None = None):
        self.folder = Path(folder)
        self.rows_folder = Path(rows_from) if rows_from else self.folder
        if not self.folder.is_dir():
            raise HistoloomError(
                f"There is no tile store at {self.folder}. Run `dvc repro`, or `dvc pull` to fetch it."
            )
        self.parts = sorted(p.name for p in self.folder.iterdir() if (p / RECORD).exists())
        if not self.parts:
            raise HistoloomError(
                f"{self.folder} holds no committed part: it is not a tile store, or its stage never "
                "finished. Run `dvc repro`."
            )

    def rows(
        self, columns: Collection[str] | None = None, split: str | None = None, optional: Collection[str] = ()
    ) -> pd.DataFrame:
        """All rows in the order of parts, with two columns more: `part` and `index`, the tile's place in it.

        columns : those that are read; unstated, all. split : the one whose rows are kept.
        optional : columns that are read too, of the parts that have them.
        """
        wanted = None if columns is None else sorted({*columns, "split"} if split else {*columns})
        frames = []
        for part in self.parts:
            path = self.rows_folder / part / ROWS
            here = set(pq.read_schema(path).names).intersection(optional) if optional else set()
            frame = pd.read_parquet(path, columns=None if wanted is None else [*wanted, *sorted(here)])
            frame = frame.assign(part=part, index=np.arange(len(frame)))
            frames.append(frame if split is None else frame[frame["split"] == split])
        filled = [frame for frame in frames if len(frame)] or frames[:1]
        return pd.concat(filled, ignore_index=True)

    def whole(self, rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
        """Rows that were read in some columns, part by part with all columns; those that they have stay as they are."""
        for part, of_part in rows.groupby("part", sort=False):
            every = pd.read_parquet(self.rows_folder / str(part) / ROWS).iloc[of_part["index"].to_numpy()]
            further = every[[name for name in every if name not in of_part]]
            yield pd.concat([of_part, further.set_index(of_part.index)], axis=1)

    def array(self, part: str, name: str = "image") -> zarr.Array:
        """An array of a part, which is read where it is indexed.

        Raises
        ------
        HistoloomError
            when the part holds rows alone, or no array of this name.
        """
        if not (self.folder / part / "images.zarr").is_dir():
            raise HistoloomError(
                f"{self.folder}/{part} holds rows without pictures, as verdicts do. Name the store that they are of and take the "
                "rows from here: histoloom preview data/synthetic --rows data/verdicts."
            )
        group = zarr.open_group(self.folder / part / "images.zarr", mode="r")
        if name not in group:
            raise HistoloomError(
                f"{self.folder}/{part} has no '{name}'. A mask comes of tile.masks, and outlines ('edge') of the column "
                "'instances' in slides.csv, or of tile.masks.source: stain; every slide must have them. A partner comes of the column 'partner', "
                "and a volume of a set of arrays."
            )
        array = group[name]
        assert isinstance(array, zarr.Array), "a part holds no groups"
        return array

    def has(self, name: str, part: str | None = None) -> bool:
        """Whether a part, the first if unstated, has an array of this name."""
        return name in zarr.open_group(self.folder / (part or self.parts[0]) / "images.zarr", mode="r")

    def has_everywhere(self, name: str) -> bool:
        """Whether all parts have an array of this name."""
        return all(self.has(name, part) for part in self.parts)

    def read(self, rows: pd.DataFrame, name: str = "image") -> np.ndarray:
        """An array of these rows' tiles, in their order: (n, h, w[, 3]) of a picture or a mask."""
        out: np.ndarray | None = None
        positions = pd.Series(np.arange(len(rows)))
        for part, places in positions.groupby(rows["part"].to_numpy()):
            array = self.array(part, name)
            if out is None:
                out = np.empty((len(rows), *array.shape[1:]), dtype=array.dtype)
            index = rows["index"].to_numpy()[places.to_numpy()]
            out[places.to_numpy()] = _gather(array, index)
        if out is None:
            array = self.array(self.parts[0], name)
            out = np.empty((0, *array.shape[1:]), dtype=array.dtype)
        return out

    def batches(self, rows: pd.DataFrame, size: int, name: str = "image") -> Iterator[np.ndarray]:
        """The tiles of these rows, at most `size` at once."""
        for start in range(0, len(rows), size):
            yield self.read(rows.iloc[start : start + size], name)


def open_store(path: str | Path, rows_from: str | Path | None = None) -> TileStore:
    """Open a tile store to be read: `.rows()` is its table, `.read(rows)` the pictures of rows, (n, h, w, 3) uint8.

    Parameters
    ----------
    path : the folder, such as a study's data/tiles or data/synthetic.
    rows_from : take the rows from here, such as data/verdicts for data/synthetic.

    Raises
    ------
    HistoloomError
        when there is no store.
    """
    return TileStore(path, rows_from)


def stores_in(folders: Iterable[Path], rows_from: Path | None = None) -> list[TileStore]:
    """The stores among folders that hold any tile; a study that weaves no slide has no tile of them."""
    return [TileStore(folder, rows_from) for folder in folders if any(folder.glob(f"*/{RECORD}"))]


def _gather(array: zarr.Array, index: np.ndarray) -> np.ndarray:
    """Rows `index` of a zarr array, read shard by shard where many are wanted of it."""
    if len(index) < 8:
        return np.stack([np.asarray(array[int(i)]) for i in index])
    low, high = int(index.min()), int(index.max()) + 1
    if high - low <= 4 * len(index):
        return np.asarray(array[low:high])[index - low]
    places = np.argsort(np.argsort(index, kind="stable"), kind="stable")
    return np.asarray(array.oindex[np.sort(index)])[places]
