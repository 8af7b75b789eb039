"""The tile store, the one form of real and synthetic tiles: a folder of parts, each written once and whole.

`PART/rows.parquet` has a row for each tile, and `PART/images.zarr` its arrays, one tile a chunk, many chunks a shard (more of
them where a part is of a set of tiles, so that its files are few):

- `image` (n, h, w, 3) uint8;
- `mask` (n, h, w) uint8, class ids, where there are masks; all UNKNOWN where nobody says what a tile shows (`masked` is false);
- `instance` (n, h, w) int32 and `edge` (n, h, w) uint8, where nuclei are told apart: their numbers, and their outlines as the
  whole slide shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import zarr
from zarr.codecs import ZstdCodec

from histoloom.data.commit import RECORD
from histoloom.errors import HistoloomError

UNKNOWN = 255
SHARD_TILES = 128
_AT_ONCE = {"codec_pipeline.batch_size": 64}  # one tile at a time, zarr's own bookkeeping costs more than zstd
_ZSTD_LEVEL = -1  # stained tissue is noise to a compressor: level 1 saves 3 % more for three times the time
_FORM = {"image": ("uint8", (3,)), "mask": ("uint8", ()), "instance": ("int32", ()), "edge": ("uint8", ())}


class TileWriter:
    """Writes one part's arrays, whole shards at a time; only one process may write a part.

    A thread of its own compresses and writes a shard while the caller makes the next; at most two are held. Use it as
    a context manager: leaving it writes the rest.

    Parameters
    ----------
    folder : the part's folder.
    tile_px : side of the square tiles.
    arrays : which of `image`, `mask`, `instance` and `edge` there will be.
    shard_tiles : how many tiles a file holds.
    """

    def __init__(self, folder: Path, tile_px: int, arrays: Sequence[str] = ("image",), shard_tiles: int = SHARD_TILES):
        group = zarr.create_group(folder / "images.zarr")
        self._shard_tiles = shard_tiles
        self._arrays = {name: _create(group, name, tile_px, shard_tiles) for name in arrays}
        self._pending: dict[str, list[np.ndarray]] = {name: [] for name in arrays}
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
        """Add one tile's arrays by name; each (tile_px, tile_px[, 3]). They must not be changed afterwards."""
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


def _create(group: zarr.Group, name: str, tile_px: int, shard_tiles: int) -> zarr.Array:
    dtype, tail = _FORM[name]
    return group.create_array(
        name,
        shape=(0, tile_px, tile_px, *tail),
        dtype=dtype,
        chunks=(1, tile_px, tile_px, *tail),
        shards=(shard_tiles, tile_px, tile_px, *tail),
        compressors=ZstdCodec(level=_ZSTD_LEVEL),
        config={"write_empty_chunks": True},  # looking for empty tiles costs as much as compressing them
    )


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

    def rows(self) -> pd.DataFrame:
        """All rows in the order of parts, with two columns more: `part` and `index`, the tile's place in it."""
        frames = []
        for part in self.parts:
            frame = pd.read_parquet(self.rows_folder / part / "rows.parquet")
            frames.append(frame.assign(part=part, index=np.arange(len(frame))))
        filled = [frame for frame in frames if len(frame)] or frames[:1]
        return pd.concat(filled, ignore_index=True)

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
                "'instances' in slides.csv, or of tile.masks.source: stain; every slide must have them."
            )
        array = group[name]
        assert isinstance(array, zarr.Array), "a part holds no groups"
        return array

    def has(self, name: str, part: str | None = None) -> bool:
        """Whether a part, the first if unstated, has an array of this name."""
        return name in zarr.open_group(self.folder / (part or self.parts[0]) / "images.zarr", mode="r")

    def read(self, rows: pd.DataFrame, name: str = "image") -> np.ndarray:
        """The tiles of these rows, in their order: (n, h, w[, 3])."""
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
