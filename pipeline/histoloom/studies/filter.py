"""Score every synthetic tile, and reject those that the filters distrust."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from histoloom.cluster import uses_torch
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.commit import commit_part
from histoloom.data.lineage import model_sha256
from histoloom.data.schema import VERDICT_COLUMNS
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.quality.filters.base import tiles_of
from histoloom.quality.filters.filter_set import EXTRACTOR, FILTERS, FilterSet, load_filter_set
from histoloom.studies.stage_work import Work

_LEAST_JUDGED = 10
"""A class with fewer synthetic tiles has no yield to speak of."""


class Yield(TypedDict):
    """How many synthetic tiles there are, how many the filters accept, and how many they reject for each reason."""

    synthetic: int
    accepted: int
    rejected_for: dict[str, int]


class Funnel(Yield):
    """The yield of tiles of one purpose, in all and by class."""

    by_class: dict[str, Yield]


@dataclass(frozen=True)
class FilterPart:
    """One task of `filter`."""

    part: str
    store: Path
    filters: Path
    filters_sha256: str
    device: str
    parts: Path


@lru_cache(maxsize=1)
def _filter_set(folder: Path, sha256: str) -> FilterSet:
    return load_filter_set(folder)


@uses_torch
def filter_part(job: FilterPart) -> dict:
    """Score one part and accept or reject its tiles, unless its verdicts are there."""
    return commit_part(job.parts, job.part, lambda folder: _write_verdicts(job, folder))["info"]


def _write_verdicts(job: FilterPart, folder: Path) -> dict:
    store = TileStore(job.store)
    table = pq.read_table(job.store / job.part / "rows.parquet")
    rows = table.to_pandas().assign(part=job.part, index=np.arange(table.num_rows))
    record = json.loads((job.filters / EXTRACTOR).read_text(encoding="utf-8"))
    extractor = load_extractor(record["name"], job.device).check(record)
    verdicts = _filter_set(job.filters, job.filters_sha256)(tiles_of(store, rows, extractor))
    for name in verdicts.columns:
        table = table.append_column(name, pa.array(verdicts[name], VERDICT_COLUMNS.get(name)))
    pq.write_table(table, folder / "rows.parquet")
    return {"tiles": len(rows), "accepted": int(verdicts["accepted"].sum())}


def run(work: Work) -> None:
    """Accept or reject every synthetic tile. The verdicts are the stores' rows with scores, `accepted` and `reject_reasons`.

    Raises
    ------
    HistoloomError
        when of some class less than `filter.min_yield` passes. The verdicts are written all the same, to be looked at.
    """
    study, filters = work.study, work.study.filters
    shared = (filters.resolve(), model_sha256(filters), work.device, work.parts.resolve())
    stores = study.synthetic_stores(verdicts=False)
    jobs = [FilterPart(part, store.folder.resolve(), *shared) for store in stores for part in store.parts]
    with work.pool(len(jobs)) as call:
        call(filter_part, jobs, "filter")
    work.promote_parts([job.part for job in jobs], study.verdicts)
    metrics: dict[str, Funnel] = {}
    every = []
    for store in study.synthetic_stores():
        rows = store.rows()
        every.append(rows[rows["purpose"] == "augment"])
        if store.folder == study.woven_tiles:
            metrics["woven"] = _funnel(rows)
        else:
            metrics |= {str(purpose): _funnel(part) for purpose, part in rows.groupby("purpose")}
    work.write_metrics(metrics)
    if "augment" in metrics:  # slides don't excuse what fails tile by tile
        _check_yields(metrics["augment"]["by_class"], work.params.filter.min_yield)
    if every:
        _check_yields(_funnel(pd.concat(every))["by_class"], work.params.filter.min_yield)


def _check_yields(classes: dict[str, Yield], least: float) -> None:
    """Refuse verdicts that leave next to nothing of a class that was to be augmented, tile by tile or in slides."""
    poor = {
        c: n for c, n in classes.items() if n["synthetic"] >= _LEAST_JUDGED and n["accepted"] < least * n["synthetic"]
    }
    if poor:
        said = "; ".join(
            f"'{name}': {n['accepted']} of {n['synthetic']} ({', '.join(f'{r}: {k}' for r, k in n['rejected_for'].items() if k)})"
            for name, n in poor.items()
        )
        raise HistoloomError(
            f"Too little passed the filters of {said}. filter.min_yield asks for {least:.0%} of each class, so that no class "
            "vanishes unseen. Look with: histoloom preview data/synthetic --rows data/verdicts. Then train the generator longer, raise "
            "train_filters.false_rejection of what rejects most, or lower filter.min_yield."
        )


def _funnel(rows: pd.DataFrame) -> Funnel:
    classes = rows.groupby(rows["label"].fillna("unlabelled"))
    return {**_yield(rows), "by_class": {str(label): _yield(part) for label, part in classes}}


def _yield(rows: pd.DataFrame) -> Yield:
    count = rows["reject_reasons"].explode().value_counts()
    used = [f.reason for name, f in FILTERS.items() if f"{name}_score" in rows]
    rejected_for = {reason: int(count.get(reason, 0)) for reason in used}
    return {"synthetic": len(rows), "accepted": int(rows["accepted"].sum()), "rejected_for": rejected_for}
