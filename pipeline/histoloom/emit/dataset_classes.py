"""The classes of an emitted dataset, the same in all splits and formats; tiles without one are left out and counted."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from histoloom.config import Labels
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError

UNLABELLED = "unlabelled"
"""The class of all tiles, where the study has no labels."""


@dataclass(frozen=True)
class Source:
    """Tiles of a store that leave in one split."""

    store: TileStore
    rows: pd.DataFrame


def classes_of(config: Labels, sources: dict[str, list[Source]]) -> tuple[str, ...]:
    """The classes by their numbers: those that params name, in their order, whether or not a tile is of them.

    A study without labels has one class, of all tiles.

    Raises
    ------
    HistoloomError
        when a tile has another label.
    """
    named = config.classes
    found = {label for parts in sources.values() for part in parts for label in part.rows["label"].dropna()}
    if extra := sorted(found - set(named)):
        raise HistoloomError(
            f"Tiles are labelled {extra[0]!r}, which tile.labels.classes does not name. Name it, or cut the tiles again."
        )
    if config.given:
        return named
    return (*(name for name in named if name in found and name != UNLABELLED), UNLABELLED)


def labelled(
    config: Labels, sources: dict[str, list[Source]]
) -> tuple[dict[str, list[Source]], dict[str, dict[str, int]]]:
    """The tiles that have a class, and, by split and source, how many have none and are left out.

    Raises
    ------
    HistoloomError
        when the train split keeps no tile.
    """
    kept: dict[str, list[Source]] = {}
    left_out: dict[str, dict[str, int]] = {}
    for split, parts in sources.items():
        kept[split] = []
        for part in parts:
            rows = part.rows
            if not config.given:
                rows = rows.assign(label=rows["label"].fillna(UNLABELLED))
            lacking = rows["label"].isna()
            for source, count in rows.loc[lacking, "source"].value_counts().items():
                by_source = left_out.setdefault(split, {})
                by_source[source] = by_source.get(source, 0) + count
            kept[split].append(Source(part.store, rows[~lacking]))
    if not any(len(part.rows) for part in kept["train"]):
        raise HistoloomError(
            "No train tile has a label, so there is nothing to emit. Label some (tile.labels), or set tile.labels.source: none."
        )
    return kept, left_out
