"""The pictures of a set as its files list them, before it is asked whose they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.config import TileSet
from histoloom.errors import Fault, Note

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
NONE = -1
_SHOWN = 3


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


@dataclass
class Found:
    """Collects what is wrong with a set, or worth saying."""

    config: TileSet
    all: list[Fault | Note] = field(default_factory=list)

    def fault(self, problem: str, remedy: str, row: int | None = None, column: str | None = None) -> None:
        self.all.append(Fault(self.config.path, problem, remedy, row, column))

    def note(self, fact: str) -> None:
        self.all.append(Note(self.config.path, fact))


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


def texts(values: Iterable) -> list[str]:
    """Values as text, a missing one as the empty text."""
    return ["" if value is None or value != value else str(value).strip() for value in values]


def shown(names: Iterable[str]) -> str:
    """The first names in quotes, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(f"'{name}'" for name in names[:_SHOWN]) + more


def name_in_set(config: TileSet, file: Path, key: str) -> str:
    """The name of a picture of a file: with the file's stem where a folder or a glob may name more files."""
    return key if file == Path(config.path) else f"{file.stem}/{key}"


def their_column(config: TileSet, ours: str, have: Iterable[str]) -> str | None:
    """The set's column of this name of ours; unstated, the same name, or its plural."""
    have = set(have)
    if ours in config.columns:
        return config.columns[ours]
    return next((name for name in (ours, f"{ours}s") if name in have), None)
