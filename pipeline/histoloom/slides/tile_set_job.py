"""The parts of a set of tiles, each as a task."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.config import Tile, TileSet
from histoloom.config.tile_sets import SetFormat
from histoloom.data.commit import digest
from histoloom.data.splits import shuffled
from histoloom.data.tile_sets.listing import NONE
from histoloom.data.tile_sets.read import Unreadable, read_stored
from histoloom.data.tile_sets.tiles import TileTable
from histoloom.slides.grid import grid
from histoloom.slides.job import DECIDED_ELSEWHERE
from histoloom.slides.tile_picture import BadPicture, size_of
from histoloom.slides.tissue import FIT_TILES

PART_TILES = 4096
"""The most tiles of a part, unless a picture alone gives more."""
_NOT_OF_TILES = {
    "scales",
    "path",
    "name",
    "table",
    "root",
    "masks",
    "values",
    "patterns",
    "label_names",
    "group_by",
    "format",
}
"""Of a set's params: what is in the rows, or only says where they are found."""


@dataclass(frozen=True)
class SetJob:
    """One part of a set; plain data, so that any worker can do it, and compressed, as there are thousands of rows.

    packed_rows : those of a TileTable, with `split_group`, `split` and `visible`, the fraction of the labels of a tile's slide and
        split that are visible. Numbers of files count in `files`.
    packed_fit : rows of the tiles that each slide's stain is fitted to; none where nothing is fitted.
    packed_files : the files that hold the pictures and masks of both.
    parts : the folder of all parts.
    fingerprint : covers the pictures' contents and what is stated of them, and nothing of other parts.
    seed : the study's.
    """

    config: TileSet
    form: SetFormat
    packed_files: bytes
    packed_rows: bytes
    packed_fit: bytes
    tile: Tile
    parts: Path = Path()
    fingerprint: str = ""
    seed: int = 0

    @property
    def part(self) -> str:
        return f"{self.config.id}@{self.fingerprint}"

    @cached_property
    def files(self) -> tuple[Path, ...]:
        return tuple(Path(text) for text in _unpacked(self.packed_files)["path"])

    @cached_property
    def rows(self) -> pd.DataFrame:
        return _unpacked(self.packed_rows)

    @cached_property
    def fit(self) -> pd.DataFrame:
        return _unpacked(self.packed_fit)


def packed_files(files: Sequence[Path]) -> bytes:
    return packed(pd.DataFrame({"path": [str(path) for path in files]}, dtype=object))


def packed(frame: pd.DataFrame) -> bytes:
    """A table as Parquet."""
    stream = io.BytesIO()
    frame.to_parquet(stream, index=False, compression="zstd")
    return stream.getvalue()


def _unpacked(content: bytes) -> pd.DataFrame:
    return pd.read_parquet(io.BytesIO(content))


@dataclass(frozen=True)
class Planned:
    """What is common to the parts of all sets.

    splits : group to split. visible : slide to split to the fraction of labels that are visible, where some are hidden.
    sha256 : of files. parts, code, seed : as a job has them.
    """

    tile: Tile
    splits: Mapping[str, str]
    visible: Mapping[str, Mapping[str, float]]
    sha256: Callable[[Sequence[Path]], list[str]]
    parts: Path
    code: str
    seed: int


def set_jobs(table: TileTable, planned: Planned) -> Iterator[SetJob]:
    """The jobs of a set's parts, scale by scale. Tiles of all scales but the first have theirs in their ids, as slides' tiles have."""
    ids = table.rows["tile_id"]
    for number, tile in enumerate(planned.tile.at_scales(table.config)):
        rows = table.rows.assign(tile_id=ids + f"_{tile.mpp:g}") if number else table.rows
        yield from _jobs_of_scale(replace(table, rows=rows), replace(planned, tile=tile))


def _jobs_of_scale(table: TileTable, planned: Planned) -> Iterator[SetJob]:
    tile = planned.tile
    rows = table.rows.assign(split_group=table.rows["slide_id" if tile.split.group == "slide" else "patient_id"])
    rows["split"] = rows["split_group"].map(planned.splits)
    pairs = zip(rows["slide_id"], rows["split"])
    rows["visible"] = [planned.visible.get(slide, {}).get(split, 1.0) for slide, split in pairs]
    fit, hashes = _fitted(rows, tile), planned.sha256(table.files)
    start = 0
    for end in part_ends(rows["tile_id"].tolist(), max(1, PART_TILES // _tiles_of_picture(table, tile))):
        mine = rows.iloc[start:end]
        of_slides = fit[fit["slide_id"].isin(mine["slide_id"])]
        numbers = np.unique(np.concatenate([of[c] for of in (mine, of_slides) for c in ("file", "mask_file")]))
        numbers = numbers[numbers != NONE]
        mine, of_slides = (_renumbered(of, numbers) for of in (mine, of_slides))
        name = _fingerprint(table, planned, (mine, of_slides), [hashes[n] for n in numbers])
        files = packed_files([table.files[n] for n in numbers])
        yield SetJob(
            table.config, table.form, files, packed(mine), packed(of_slides), tile, planned.parts, name, planned.seed
        )
        start = end


def _fingerprint(table: TileTable, planned: Planned, frames: tuple[pd.DataFrame, ...], hashes: Sequence[str]) -> str:
    """Of everything that decides a part."""
    tile = planned.tile.model_dump(exclude=DECIDED_ELSEWHERE)
    stated = table.config.model_dump(exclude=_NOT_OF_TILES)
    hidden = planned.seed if (frames[0]["visible"] < 1).any() else None
    rows = [frame.drop(columns="line").to_json(orient="split") for frame in frames]
    return digest([tile, stated, table.form, rows, hashes, hidden, planned.code])[:16]


def _renumbered(rows: pd.DataFrame, numbers: np.ndarray) -> pd.DataFrame:
    """Rows whose numbers of files count in those of the part."""
    place = {int(number): index for index, number in enumerate(numbers)} | {NONE: NONE}
    changed = {column: rows[column].map(place).astype("int64") for column in ("file", "mask_file")}
    return rows.assign(**changed).reset_index(drop=True)


def part_ends(names: Sequence[str], most: int) -> Iterator[int]:
    """Where parts end, so that a name more changes the part that it falls into, and few others.

    A part has three quarters of the most at least. It ends after the name with the least hash of those with which it may end.
    """
    hashes, least, start = [_hash(name) for name in names], max(1, most * 3 // 4), 0
    while len(names) - start > most:
        start = min(range(start + least, start + most + 1), key=lambda end: hashes[end - 1])
        yield start
    if start < len(names):
        yield len(names)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")


def _fitted(rows: pd.DataFrame, tile: Tile) -> pd.DataFrame:
    """The tiles to which each slide's stain is fitted, drawn by a hash of their ids."""
    if tile.stain == "none" and tile.masks.source != "stain":
        return rows.iloc[:0]
    chosen = {name for _, mine in rows.groupby("slide_id")["tile_id"] for name in shuffled(mine, 0)[:FIT_TILES]}
    return rows[rows["tile_id"].isin(chosen)]


def _tiles_of_picture(table: TileTable, tile: Tile) -> int:
    """How many tiles the first picture that can be read gives."""
    if table.config.larger == "centre":
        return 1
    first = table.rows.iloc[:1]
    for picture, _ in read_stored(table.config, table.form, table.files, first):
        try:
            if isinstance(picture, Unreadable):
                return 1
            width, height = (int(side * first["mpp"].iloc[0] / tile.mpp) for side in size_of(picture))
        except BadPicture:
            return 1
        return max(1, len([*grid(width, height, tile.tile_px, tile.stride_px)]))
    return 1
