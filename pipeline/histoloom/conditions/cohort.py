"""The cohort as a vector: which site, scanner or protocol a tile comes from, one hot over the values of each column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from histoloom.conditions.condition import Arrays, Condition, FitJob, Fitted, ReadTiles, Source
from histoloom.config import Params
from histoloom.data.csv_table import read_csv_table
from histoloom.data.manifest import Manifest
from histoloom.data.slide_fields import chosen, parsed, written
from histoloom.errors import Fault, HistoloomError, Note, key_fault
from histoloom.progress import console


@dataclass(frozen=True)
class CohortCondition(Condition):
    """channel_names : `COLUMN=VALUE`, one for each value that train tiles have. A value that they don't have is the null."""

    channel_names: tuple[str, ...]
    name = "cohort"
    shape = "vector"
    hot = True
    column = "cohort"

    @property
    def channels(self) -> tuple[str, ...]:
        return self.channel_names

    @classmethod
    def check(cls, params: Params, manifest: Manifest) -> Iterator[Fault | Note]:
        columns, known = params.train_encoders.cohort.columns, {c for s in manifest.stated for c in s.extra}
        if not columns:
            problem = "train_denoiser.conditions has cohort, and it names no column."
            yield key_fault("train_encoders.cohort.columns", problem, "name columns of slides.csv, such as site.")
        for column in (c for c in columns if c not in known):
            has = ", ".join(sorted(known)) or "none of your own"
            problem = f"slides.csv has no column '{column}'."
            yield key_fault(
                "train_encoders.cohort.columns", problem, f"add it, or name one of those that it has: {has}."
            )
        for place, stated in _named(params):
            for column, value in stated.items():
                values = {slide.extra.get(column) or "" for slide in manifest.stated} - {""}
                if value not in values:
                    problem, remedy = f"no slide has '{column}={value}'.", f"name one of {', '.join(sorted(values))}."
                    yield Fault(place, problem, remedy)

    @classmethod
    def stated(cls, rows: pd.DataFrame, params: Params) -> pd.Series:
        """JSON of the columns that params name."""
        fields = chosen(rows, params.train_encoders.cohort.columns)
        return pd.Series([written(of) for of in fields], rows.index, object)

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        """The values that train tiles have."""
        train, every = (_channels(cls.stated(rows, job.params)) for rows in (job.rows, job.store.rows()))
        if not train:
            columns = ", ".join(job.params.train_encoders.cohort.columns)
            raise HistoloomError(f"No train slide states {columns} in slides.csv. Fill it in, or take cohort out.")
        if unseen := sorted(set(every) - set(train)):
            console.print(f"train_encoders: cohort: held-out tiles of {', '.join(unseen)} are given none", markup=False)
        return Fitted({"channels": sorted(train)}, {"train_tiles": dict(train), "unseen": unseen})

    @classmethod
    def load(cls, source: Source) -> Self:
        return cls(tuple(source.facts["channels"]))

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        place = {channel: index for index, channel in enumerate(self.channel_names)}
        out = np.zeros((len(rows), len(place)), np.float32)
        for row, text in enumerate(rows[self.column]):
            hot = [place[channel] for channel in _pairs(text) if channel in place]
            out[row, hot] = 1
        return {self.name: out}


def _pairs(text: str | None) -> list[str]:
    return [f"{column}={value}" for column, value in parsed(text).items()]


def _channels(stated: pd.Series) -> Counter[str]:
    return Counter(channel for text in stated for channel in _pairs(text))


def _named(params: Params) -> Iterator[tuple[str, dict[str, str]]]:
    """Cohorts that requests, slides and their tables name, and where."""
    for number, request in enumerate(params.plan.requests):
        yield f"params.yaml, plan.requests[{number}].where.cohort", request.where.cohort
        yield f"params.yaml, plan.requests[{number}].change.cohort", request.change.cohort
    for slide in params.sample_slides.slides:
        yield f"params.yaml, sample_slides.slides, '{slide.name}'", slide.cohort
        if slide.condition_grid is not None:
            table, _ = read_csv_table(slide.condition_grid)  # its faults are said where slides are looked at
            for column in (c for c in table if c.startswith("cohort.")):
                for value in sorted({*table[column]} - {""}):
                    yield f"{slide.condition_grid}, column '{column}'", {column.partition(".")[2]: value}
