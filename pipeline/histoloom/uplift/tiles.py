"""The tiles of the experiment: those that can answer the question, and whether they are enough to ask it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from histoloom.config import Params
from histoloom.data.mapped import AT_ONCE
from histoloom.data.rows import held_out_rows
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.uplift.protocol import Trial
from histoloom.uplift.tasks import Task, label_task, mask_task

_LEAST_TEST = 10
_REAL = ("tile_id", "split", "split_group", "label")
_SYNTHETIC = ("tile_id", "split_group", "label", "purpose", "accepted")
_NOT_STATED = {"masked": False, "request": ""}
"""Columns that stores of earlier versions lack, and what they would say."""


@dataclass(frozen=True)
class UpliftTiles:
    """Rows that have what the task asks for, and the stores that their images lie in.

    synthetic_stores : of synthetic tiles. `store` in the rows counts the stores: 0 is `real`, then these.
    every_train : all real train tiles, labelled or not: what the generator saw. pool : those without a label, or whose mask nobody drew.
    val : real tiles by which arms are chosen; none where val is what is tested on.
    classes : of labels, or of masks.
    not_in_train : class to the test tiles of it that aren't asked about, since train shows none.
    """

    real: TileStore
    synthetic_stores: list[TileStore]
    train: pd.DataFrame
    synthetic: pd.DataFrame
    test: pd.DataFrame
    val: pd.DataFrame
    every_train: pd.DataFrame
    pool: pd.DataFrame
    classes: tuple[str, ...]
    masks: bool
    not_in_train: dict[str, int]

    @property
    def task(self) -> Task:
        return (mask_task if self.masks else label_task)(self.test, self.classes)

    @property
    def val_task(self) -> Task:
        return (mask_task if self.masks else label_task)(self.val, self.classes)

    @property
    def test_px(self) -> int:
        """Side of the tiles."""
        return self.real.array(self.test["part"].iloc[0]).shape[1]

    def class_numbers(self, rows: pd.DataFrame) -> np.ndarray:
        """(n,) of the rows' labels."""
        return rows["label"].map({name: number for number, name in enumerate(self.classes)}).to_numpy(np.int64)

    def read(self, rows: pd.DataFrame, name: str = "image") -> np.ndarray:
        """Of rows of any of the stores, in their order, (n, h, w[, 3]) uint8."""
        stores = [self.real, *self.synthetic_stores]
        parts = [(store, rows[rows["store"] == number]) for number, store in enumerate(stores)]
        found = [store.read(part, name) for store, part in parts if len(part)]
        order = np.argsort(np.concatenate([np.flatnonzero(rows["store"] == n) for n in range(len(parts))]))
        return np.concatenate(found)[order]

    def batches(self, rows: pd.DataFrame, name: str = "image") -> Iterator[np.ndarray]:
        """What `read` gives, some rows at a time."""
        for start in range(0, len(rows), AT_ONCE):
            yield self.read(rows.iloc[start : start + AT_ONCE], name)


def load_tiles(study: Study, params: Params) -> UpliftTiles:
    real, stores = study.real(), study.synthetic_stores()
    rows = _rows(real, _REAL).assign(store=0)
    of_parts = [_rows(store, _SYNTHETIC).assign(store=number) for number, store in enumerate(stores, 1)]
    synthetic = pd.concat(of_parts, ignore_index=True) if of_parts else rows.head(0).assign(accepted=True, purpose="")
    synthetic = synthetic[synthetic["purpose"] == "augment"].astype({"accepted": bool})
    masks = params.uplift.task == "mask"
    every = rows[rows["split"] == "train"]
    if masks:
        classes = params.tile.masks.classes
        kinds = [part[part["masked"].astype(bool)] for part in (rows, synthetic)]
    else:
        classes = tuple(c for c in params.tile.labels.classes if (every["label"] == c).any())
        kinds = [part[part["label"].isin(classes)] for part in (rows, synthetic)]
    known, synthetic = (part.reset_index(drop=True) for part in kinds)
    pool = every[~every["masked"].astype(bool) if masks else every["label"].isna()]
    val = known[known["split"] == "val"] if (known["split"] == "test").any() else known.head(0)
    parts = (known[known["split"] == "train"], held_out_rows(known), val, every, pool)
    train, test, val, every, pool = (part.reset_index(drop=True) for part in parts)
    missed = {} if masks else held_out_rows(rows)["label"].value_counts().drop(list(classes), errors="ignore").to_dict()
    return UpliftTiles(real, stores, train, synthetic, test, val, every, pool, classes, masks, missed)


def _rows(store: TileStore, columns: tuple[str, ...]) -> pd.DataFrame:
    rows = store.rows(columns, optional=_NOT_STATED)
    for name, value in _NOT_STATED.items():
        rows[name] = rows[name].where(rows[name].notna(), value) if name in rows else value
    return rows


def check_tiles(tiles: UpliftTiles) -> None:
    """Refuse to ask what so few tiles can't answer.

    Raises
    ------
    HistoloomError
        when there are too few tiles to test on, one label alone, or no mask.
    """
    if tiles.masks and (not tiles.classes or tiles.train.empty):
        raise HistoloomError(
            "uplift.task is mask, and there are no train tiles with masks. Set tile.masks, or uplift.task: label."
        )
    if not tiles.masks and len(tiles.classes) < 2:
        raise HistoloomError(
            f"uplift needs two classes in the train split, and there are {len(tiles.classes)}. Label more, or set uplift.seeds: 0."
        )
    if len(tiles.test) < _LEAST_TEST:
        raise HistoloomError(
            f"uplift needs {'masks of' if tiles.masks else 'labelled'} held-out tiles to test on, and there are {len(tiles.test)}. "
            "Change tile.split, or set uplift.seeds: 0."
        )
    asked = range(1, len(tiles.classes) + 1)
    if tiles.masks and not any(np.isin(masks, asked).any() for masks in tiles.batches(tiles.test, "mask")):
        raise HistoloomError(
            f"No test tile's mask shows any of {', '.join(tiles.classes)}, so there is nothing to find. Change tile.split, or set "
            "uplift.seeds: 0."
        )


def left_out_arms(trials: list[Trial], tiles: UpliftTiles, pretrainable: bool) -> dict[str, str]:
    """The arms that can't be tried, and why.

    pretrainable : whether the learner's network can be trained without labels.
    """
    left_out = {}
    for arm in {trial.arm: trial.kind for trial in trials}.values():
        made = tiles.synthetic[tiles.synthetic["accepted"]]
        made = made[made["request"].isin(arm.requests)] if arm.requests else made
        lacking = [] if tiles.masks else [c for c in tiles.classes if c not in set(made["label"])]
        if arm.has_synthetic and tiles.synthetic.empty:
            what = "mask" if tiles.masks else "label"
            left_out[arm.name] = f"no tile with a {what} was made to augment (see plan.target and plan.requests)"
        elif arm.has_synthetic and made.empty:
            left_out[arm.name] = "no synthetic tile was accepted" + (
                f" of {', '.join(arm.requests)}" if arm.requests else ""
            )
        elif arm.has_synthetic and not arm.has_real and lacking:
            left_out[arm.name] = f"no synthetic tile shows {', '.join(lacking)}"
        elif arm.retrieves and tiles.pool.empty:
            left_out[arm.name] = f"no real train tile is without {'a mask' if tiles.masks else 'a label'}"
        elif arm.pretrained and not pretrainable:
            left_out[arm.name] = "this learner's network can't be trained without labels"
    return left_out
