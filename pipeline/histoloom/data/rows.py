"""Which rows may be used for what: training reads the train split alone, measuring reads held-out splits."""

from __future__ import annotations

import numpy as np
import pandas as pd

from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.progress import console


def train_rows(store: TileStore) -> pd.DataFrame:
    """The train split, the only rows that anything is trained on."""
    rows = store.rows(split="train")
    if rows.empty:
        raise HistoloomError(f"{store.folder} has no tile in the train split. Check tile.split in params.yaml.")
    return rows.reset_index(drop=True)


def val_rows(store: TileStore, count: int = 512) -> pd.DataFrame:
    """Up to `count` rows of the val split (of train where there is no val, and it is said), evenly spread."""
    chosen = store.rows(split="val")
    if chosen.empty:
        console.print("no tile is in the val split: measuring on train tiles, which flatters")
        chosen = store.rows(split="train")
    return spread(chosen, count)


def held_out_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the test split, or of val where there is no test."""
    return rows[rows["split"] == ("test" if (rows["split"] == "test").any() else "val")]


def shows_mask(rows: pd.DataFrame) -> pd.Series:
    """Which rows' masks may be asked: annotated ones, and in train predicted ones too, which measure nothing."""
    return rows["masked"].astype(bool) | (rows["predicted"].astype(bool) & (rows["split"] == "train"))


def leaving_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The verdicts' rows of synthetic tiles that are emitted: made to augment, and accepted."""
    return rows[rows["accepted"] & (rows["purpose"] == "augment")]


def in_rounds(rows: pd.DataFrame, count: int, order: np.random.Generator) -> pd.DataFrame:
    """So many rows, in shuffled rounds: none is drawn twice before each was drawn once. None of an empty table."""
    rounds = [order.permutation(len(rows)) for _ in range(-(-count // max(len(rows), 1)))]
    return rows.iloc[np.concatenate(rounds)[:count] if rounds else []]


def spread(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` rows, evenly spread over the table."""
    if len(rows) <= count:
        return rows
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, count).astype(int))]


def spread_by(rows: pd.DataFrame, labels: pd.Series, count: int) -> pd.DataFrame:
    """At most `count` rows of each label, and of those without one, evenly spread over the table and in its order."""
    chosen = [spread(part, count) for _, part in rows.groupby(labels.fillna("").to_numpy(object))]
    return rows.loc[np.sort(np.concatenate([part.index for part in chosen]))] if chosen else rows
