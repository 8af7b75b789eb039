"""Score every synthetic tile, and reject those that the filters distrust."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from histoloom.cluster import uses_torch
from histoloom.data.commit import commit_part
from histoloom.data.lineage import model_sha256
from histoloom.data.rows import spread_by
from histoloom.data.schema import REFUSED, VERDICT_COLUMNS
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.progress import console
from histoloom.quality.filters.base import Fitting, Tiles, as_made, joined, tiles_of
from histoloom.quality.filters.calibration import FilterMetrics, RealTiles, measure_filter_set
from histoloom.quality.filters.filter_set import FILTERS, FilterSet, extractor_of, fit_filter_set, load_filter_set
from histoloom.studies.stage_work import Work

_LEAST_JUDGED = 10
"""A class with fewer synthetic tiles has no yield to speak of."""
_UNLABELLED = "unlabelled"
_FITTED, _SCORED = "fitted", "scored"
_MOST, _MOST_REAL = 500, 200
"""Tiles of a class that filters of the generator are fitted to: of each synthetic store, and of each split of the real ones."""


class Yield(TypedDict):
    """How many synthetic tiles there are, how many are accepted, and how many are rejected for each reason.

    not_told : tiles that passed the filter `realism` because it could not tell, for want of real or synthetic tiles.
    medians : filter to the median of its scores.
    """

    synthetic: int
    accepted: int
    rejected_for: dict[str, int]
    not_told: int
    medians: dict[str, float]


class Funnel(Yield):
    """The yield of tiles of one purpose, in all and by class."""

    by_class: dict[str, Yield]


@dataclass(frozen=True)
class FilterPart:
    """One task of `filter`.

    fitted : the folder of the filters that this stage fitted; None where there is none.
    order : names of all filters.
    """

    part: str
    store: Path
    filters: Path
    filters_sha256: str
    device: str
    parts: Path
    fitted: Path | None
    order: tuple[str, ...]


@lru_cache(maxsize=1)
def _filter_set(folder: Path, sha256: str, fitted: Path | None, order: tuple[str, ...]) -> FilterSet:
    found = load_filter_set(folder)
    return found.joined(load_filter_set(fitted), order) if fitted else found


@uses_torch
def filter_part(job: FilterPart) -> dict:
    """Score one part and accept or reject its tiles, unless its verdicts are there."""
    return commit_part(job.parts, job.part, lambda folder: _write_verdicts(job, folder))["info"]


def _write_verdicts(job: FilterPart, folder: Path) -> dict:
    store = TileStore(job.store)
    table = pq.read_table(job.store / job.part / "rows.parquet")
    rows = table.to_pandas().assign(part=job.part, index=np.arange(table.num_rows))
    extractor = extractor_of(job.filters, job.device)
    filters = _filter_set(job.filters, job.filters_sha256, job.fitted, job.order)
    verdicts = filters(tiles_of(store, rows, extractor))
    for name in verdicts.columns:
        table = table.append_column(name, pa.array(verdicts[name], VERDICT_COLUMNS.get(name)))
    pq.write_table(table, folder / "rows.parquet")
    return {"tiles": len(rows), "accepted": int(verdicts["accepted"].sum())}


def run(work: Work) -> None:
    """Accept or reject every synthetic tile. The verdicts are the stores' rows with scores, `accepted` and `reject_reasons`.

    Of a class of which less than `filter.min_yield` passes, tiles to augment are all rejected, and it is said.

    Raises
    ------
    HistoloomError
        when that leaves no tile at all. The verdicts are written all the same, to be looked at.
    """
    study, filters = work.study, work.study.filters
    stores = study.synthetic_stores(verdicts=False)
    fitted, measured = _fitted(work, stores)
    scored = (work.root / _SCORED).resolve()
    shared = (filters.resolve(), model_sha256(filters), work.device, scored, fitted, work.params.filter.use)
    jobs = [FilterPart(part, store.folder.resolve(), *shared) for store in stores for part in store.parts]
    with work.pool(len(jobs)) as call:
        call(filter_part, jobs, "filter")
    refused = _refused(work, stores, scored)
    for job in jobs:
        commit_part(work.parts, job.part, partial(_settle, scored / job.part, refused))
    work.promote_parts([job.part for job in jobs], study.verdicts)
    metrics: dict[str, Any] = {"of_generator": measured, "refused": refused}
    for store in study.synthetic_stores():
        rows = _counted(store)
        if store.folder == study.woven_tiles:
            metrics["woven"] = _funnel(rows)
        else:
            metrics |= {str(purpose): _funnel(part) for purpose, part in rows.groupby("purpose")}
    work.write_metrics(metrics)
    _say(
        refused,
        work.params.filter.min_yield,
        left=sum(metrics.get(k, {}).get("accepted", 0) for k in ("augment", "woven")),
    )


def _fitted(work: Work, stores: list[TileStore]) -> tuple[Path | None, dict[str, FilterMetrics]]:
    """The folder of filters that look at the generator or its tiles, fitted here, and what they reject of real tiles."""
    names = tuple(name for name in work.params.filter.use if FILTERS[name].of_generator)
    if not names or not stores:
        return None, {}
    record = commit_part(work.root, _FITTED, partial(_fit, work, stores, names))
    return (work.root / _FITTED).resolve(), record["info"]


def _fit(work: Work, stores: list[TileStore], names: tuple[str, ...], folder: Path) -> dict[str, FilterMetrics]:
    study, device = work.study, work.training_device()
    extractor, real = extractor_of(study.filters, device), study.real()

    def some(store: TileStore, rows: pd.DataFrame, most: int) -> Tiles:
        return tiles_of(store, spread_by(rows, rows["label"], most).reset_index(drop=True), extractor)

    synthetic = joined([some(store, store.rows(), _MOST) for store in stores])
    parts = [some(real, real.rows(split=split), _MOST_REAL) for split in ("train", "val", "test")]
    tiles = RealTiles(*(as_made(study, part, device) for part in parts))
    fitting = Fitting(
        tiles.train, tiles.train.rows, lambda: [tiles.train.images], study, work.root, device,
        held_out=tiles.held_out, synthetic=synthetic,
    )  # fmt: skip
    calibration = fit_filter_set(names, fitting, tiles.held_out, work.params.train_filters)
    calibration.filter_set.save(folder)
    return measure_filter_set(calibration, tiles, work.params.train_filters, work.params.seed).by_filter


def _refused(work: Work, stores: list[TileStore], scored: Path) -> dict[str, Yield]:
    """The classes of which too little passed, with their yields: of what was sampled tile by tile, or with the tiles of slides."""
    least = work.params.filter.min_yield
    judged = [TileStore(store.folder, rows_from=scored) for store in stores]
    rows = [_counted(store).assign(store=store.folder.name) for store in judged]
    every = (
        pd.concat([r[r["purpose"] == "augment"] for r in rows]) if rows else pd.DataFrame({"label": [], "store": []})
    )
    sampled = every[every["store"] == work.study.synthetic.name]  # slides don't excuse what fails tile by tile
    return {
        label: y
        for part in (every, sampled)
        if len(part)
        for label, y in poor(_funnel(part)["by_class"], least).items()
    }


def _counted(store: TileStore) -> pd.DataFrame:
    """Verdicts in the columns that yields are counted by."""
    return store.rows(["label", "purpose", *VERDICT_COLUMNS], optional=[f"{name}_score" for name in FILTERS])


def poor(classes: dict[str, Yield], least: float) -> dict[str, Yield]:
    """The classes of which less than this fraction of their synthetic tiles is accepted, but for those with few tiles."""
    return {
        c: n for c, n in classes.items() if n["synthetic"] >= _LEAST_JUDGED and n["accepted"] < least * n["synthetic"]
    }


def _settle(scored: Path, refused: Collection[str], folder: Path) -> None:
    """Write a part's verdicts, in which no tile to augment a refused class is accepted."""
    table = pq.read_table(scored / "rows.parquet")
    rows = table.to_pandas()
    out = (rows["purpose"] == "augment") & rows["label"].fillna(_UNLABELLED).isin(refused)
    reasons = [[*old, *([REFUSED] if gone else [])] for old, gone in zip(rows["reject_reasons"], out)]
    for name, values in {"accepted": rows["accepted"] & ~out, "reject_reasons": reasons}.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values, VERDICT_COLUMNS[name]))
    pq.write_table(table, folder / "rows.parquet")


def _say(refused: dict[str, Yield], least: float, left: int) -> None:
    """Warn of classes of which nothing is accepted, since too little passed; if nothing is left at all, fail."""
    if not refused:
        return
    said = "; ".join(
        f"'{name}': {n['accepted']} of {n['synthetic']} ({', '.join(f'{r}: {k}' for r, k in n['rejected_for'].items() if k)})"
        for name, n in refused.items()
    )
    said = f"The generator is not good enough for these classes; too little passed the filters of {said}. filter.min_yield asks for {least:.0%} of each class"
    remedy = (
        "Look with: histoloom preview data/synthetic --rows data/verdicts. Then train the generator longer, raise "
        "train_filters.false_rejection of what rejects most, take realism out of filter.use, or lower filter.min_yield."
    )
    if not left:
        raise HistoloomError(f"{said}, and no tile of any class is left. {remedy}")
    console.print(f"{said}: none of their tiles is accepted. {remedy}", markup=False)


def _funnel(rows: pd.DataFrame) -> Funnel:
    classes = rows.groupby(rows["label"].fillna(_UNLABELLED))
    return {**_yield(rows), "by_class": {str(label): _yield(part) for label, part in classes}}


def _yield(rows: pd.DataFrame) -> Yield:
    count = rows["reject_reasons"].explode().value_counts()
    used = [filter_ for filter_ in FILTERS.values() if f"{filter_.name}_score" in rows]
    reasons = dict.fromkeys([*(filter_.reason for filter_ in used), *sorted(count.index)])
    scores = {filter_.name: rows[f"{filter_.name}_score"].dropna() for filter_ in used}
    return {
        "synthetic": len(rows),
        "accepted": int(rows["accepted"].sum()),
        "rejected_for": {reason: int(count.get(reason, 0)) for reason in reasons},
        "not_told": int(rows["realism_score"].isna().sum()) if "realism_score" in rows else 0,
        "medians": {name: float(values.median()) for name, values in scores.items() if len(values)},
    }
