"""The pictures of a set as its files list them, before it is asked whose they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.config import TileSet
from histoloom.data.found import listed

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
NONE = -1


@dataclass(frozen=True)
class Listing:
    """What a set holds.

    files : that hold pictures or masks.
    places : (n,) a row a picture: `name`, unique in the set; `file`, `at` and `size`, where its picture lies: the place in
        `files`, then the first byte and how many (size NONE: the whole file), or the number of the row; `mask_file`, `mask_at`
        and `mask_size` alike, NONE where there is no mask; `line`, of a table as an editor counts, else NONE.
    stated : (n,) columns of text, as the set calls them; empty where nothing is stated.
    folders : (n,) the folders of a picture, outermost first, where folders mean something.
    label_names : names of labels that are numbers, where the set tells them.
    """

    files: tuple[Path, ...]
    places: pd.DataFrame
    stated: pd.DataFrame
    folders: tuple[tuple[str, ...], ...] = ()
    label_names: tuple[str, ...] = ()


class NotListed(Exception):
    """A file of a set that can't be listed at all: the problem and its remedy."""

    def __init__(self, problem: str, remedy: str):
        self.problem, self.remedy = problem, remedy
        super().__init__(problem)


def places(names: Iterable[str], **columns) -> pd.DataFrame:
    """`Listing.places` of these names; columns that aren't given are NONE."""
    frame = pd.DataFrame({"name": pd.Series(list(names), dtype=object)})
    for column in ("file", "at", "size", "mask_file", "mask_at", "mask_size", "line"):
        frame[column] = np.asarray(columns.get(column, NONE), dtype=np.int64)
    return frame


def rows_of(
    config: TileSet,
    files: list[Path],
    found: list[tuple[list[str], pd.DataFrame, bool]],
    label_names: tuple[str, ...] = (),
) -> Listing:
    """Pictures that are rows of files: of each file the rows' keys, what is stated of them, and whether they have masks."""
    counts = [len(keys) for keys, _, _ in found]
    names = [name_in_set(config, path, key) for path, (keys, _, _) in zip(files, found) for key in keys]
    place = np.stack([np.repeat(np.arange(len(files)), counts), np.concatenate([np.arange(n) for n in counts])])
    mask = np.where(np.repeat([masked for _, _, masked in found], counts), place, NONE)
    frame = places(names, file=place[0], at=place[1], mask_file=mask[0], mask_at=mask[1])
    stated = pd.concat([table for _, table, _ in found], ignore_index=True).fillna("")
    return Listing(tuple(files), frame, stated, label_names=label_names)


def texts(values: Iterable) -> list[str]:
    """Values as text, a missing one as the empty text."""
    return ["" if value is None or value != value else str(value).strip() for value in values]


def shown(names: Iterable[str]) -> str:
    """The first names in quotes, and how many more there are."""
    return listed(names, 3)


def name_in_set(config: TileSet, file: Path, key: str) -> str:
    """The name of a picture of a file: with the file's stem where a folder or a glob may name more files."""
    return key if file == Path(config.path) else f"{file.stem}/{key}"


def their_column(config: TileSet, ours: str, have: Iterable[str]) -> str | None:
    """The set's column of this name of ours; unstated, the same name, or its plural."""
    have = set(have)
    if ours in config.columns:
        return config.columns[ours]
    return next((name for name in (ours, f"{ours}s") if name in have), None)
