"""Numbers as a vector: of each column its value, at the train split's unit variance, and whether it is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from histoloom.conditions.condition import Arrays, Condition, FitJob, Fitted, ReadTiles, Source
from histoloom.config import Params
from histoloom.data.csv_table import as_number, number_fault
from histoloom.data.manifest import Manifest
from histoloom.data.slide_fields import chosen, parsed, written
from histoloom.errors import Fault, HistoloomError, Note, key_fault

_LEAST_SCALE = 1e-6


@dataclass(frozen=True)
class NumberCondition(Condition):
    """columns : of slides.csv. mean, scale : (columns,) of train tiles' values."""

    columns: tuple[str, ...]
    mean: np.ndarray
    scale: np.ndarray
    name = "number"
    shape = "vector"
    column = "number"

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(channel for name in self.columns for channel in (name, f"{name} given"))

    @classmethod
    def check(cls, params: Params, manifest: Manifest) -> Iterator[Fault | Note]:
        columns, key = params.train_encoders.number.columns, "train_encoders.number.columns"
        if not columns:
            problem = "train_denoiser.conditions has number, and it names no column."
            yield key_fault(key, problem, "name columns of slides.csv, such as meta_age.")
        for column in columns:
            if all(column not in slide.extra for slide in manifest.stated):
                yield key_fault(
                    key,
                    f"slides.csv has no column '{column}'.",
                    "add it, or name another; a column of your own begins with meta_.",
                )
            for slide in manifest.stated:
                if (text := slide.extra.get(column)) and (wrong := number_fault(text)):
                    yield Fault(params.tile.stated_in, wrong, "state a number, or leave it empty.", slide.row, column)

    @classmethod
    def stated(cls, rows: pd.DataFrame, params: Params) -> pd.Series:
        """JSON of the columns that params name, as numbers."""
        fields = chosen(rows, params.train_encoders.number.columns)
        texts = [written({name: as_number(str(value)) for name, value in of.items()}) for of in fields]
        return pd.Series(texts, rows.index, object)

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        """The mean and the scale of train tiles' values."""
        columns = job.params.train_encoders.number.columns
        values = _values(cls.stated(job.rows, job.params), columns)
        given = np.isfinite(values).sum(0)
        if missing := [name for name, count in zip(columns, given) if not count]:
            raise HistoloomError(f"No train slide states '{missing[0]}' in slides.csv. Fill it in, or take it out.")
        mean, scale = np.nanmean(values, 0), np.maximum(np.nanstd(values, 0), _LEAST_SCALE)
        facts = {"columns": columns, "mean": mean.tolist(), "scale": scale.tolist()}
        return Fitted(facts, {"train_tiles": dict(zip(columns, given.tolist()))})

    @classmethod
    def load(cls, source: Source) -> Self:
        facts = source.facts
        return cls(tuple(facts["columns"]), np.array(facts["mean"]), np.array(facts["scale"]))

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        values = _values(rows[self.column], self.columns)
        given = np.isfinite(values)
        standard = np.where(given, (values - self.mean) / self.scale, 0)
        return {self.name: np.stack([standard, given], 2).reshape(len(rows), -1).astype(np.float32)}


def _values(stated: pd.Series, columns: tuple[str, ...]) -> np.ndarray:
    """(n, columns) float64, NaN where a row says nothing."""
    rows = [[parsed(text).get(name, np.nan) for name in columns] for text in stated]
    return np.array(rows, np.float64).reshape(len(rows), len(columns))
