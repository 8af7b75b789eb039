"""What the `train_filters` and `filter` stages do with a study."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.conditions.features import OF_NO_PATIENT, Extractor, load_extractor
from pipeline.config import Params
from pipeline.data.ancestry import grid_of
from pipeline.data.commit import commit_part, write_json
from pipeline.data.rows import spread, train_rows, val_rows
from pipeline.data.store import MADE, TileStore, made_stores
from pipeline.data.tables import with_conditions
from pipeline.errors import HistoloomError
from pipeline.models.lineage import Lineage, read_lineage, seen
from pipeline.quality.filters.base import Fitting, Tiles
from pipeline.quality.filters.calibration import draw_calibration, measure_judge
from pipeline.quality.filters.judge import FILTERS, Judge, fit_judge, load_judge

_EXTRACTOR = "extractor.json"
_HELD_OUT_TILES = 1000
_MOST_TRAIN_TILES = 20000
"""So many teach the filters; copies are looked for among all."""
_BATCH = 512
_LEAST_JUDGED = 10
"""A class of which fewer tiles were made has no yield to speak of."""


def _tiles(store: TileStore, rows: pd.DataFrame, extractor: Extractor) -> Tiles:
    def read(name: str) -> np.ndarray | None:
        return store.read(rows, name) if all(store.has(name, part) for part in rows["part"].unique()) else None

    return Tiles(store.read(rows), rows, read, extractor)


def train_study_filters(
    params: Params,
    work,
    device: str,
    reports: Path,
    tiles="data/tiles",
    encoders: Path | str = "models/encoders",
    output="models/filters",
) -> None:
    store, config = TileStore(tiles), params.train_filters
    every = with_conditions(train_rows(store), params)
    unseen = store.rows()
    unseen = with_conditions(spread(unseen[unseen["split"] == "test"], _HELD_OUT_TILES), params)
    rows = spread(every, _MOST_TRAIN_TILES), with_conditions(val_rows(store, _HELD_OUT_TILES), params), unseen
    extractor = load_extractor(config.features, device)
    train, held_out, test = (_tiles(store, part.reset_index(drop=True), extractor) for part in rows)
    fitting = Fitting(train, every, partial(store.batches, every, _BATCH), params, Path(encoders), work.root, device)

    def write(folder: Path) -> None:
        judge, scores, calibrated = fit_judge(params.filter.use, fitting, held_out, config)
        judge.save(folder)
        lineage = seen(every, grid_of(params.tile.split))
        lineage |= Lineage(unknown=() if config.features in OF_NO_PATIENT else (config.features,))
        if {"text", "rna"} & set(params.filter.use):
            lineage |= read_lineage(encoders)
        lineage.save(folder)
        write_json(folder / _EXTRACTOR, extractor.record)
        metrics, bad = measure_judge(judge, held_out, train, test, scores, config, params.seed)
        draw_calibration(judge, calibrated, bad, reports / "calibration.png")
        write_json(reports / "metrics.json", metrics)

    work.promote(write, output)


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
def _judge(folder: Path, sha256: str) -> Judge:
    return load_judge(folder)


def filter_part(job: FilterPart) -> dict:
    """Score and judge one part, unless its verdicts are there."""
    return commit_part(job.parts, job.part, lambda folder: _write_verdicts(job, folder))["info"]


filter_part.uses_torch = True


def _write_verdicts(job: FilterPart, folder: Path) -> dict:
    store = TileStore(job.store)
    table = pq.read_table(job.store / job.part / "rows.parquet")
    rows = table.to_pandas().assign(part=job.part, index=np.arange(table.num_rows))
    record = json.loads((job.filters / _EXTRACTOR).read_text(encoding="utf-8"))
    extractor = load_extractor(record["name"], job.device).check(record)
    verdicts = _judge(job.filters, job.filters_sha256)(_tiles(store, rows, extractor))
    for name in verdicts.columns:
        table = table.append_column(name, pa.array(verdicts[name]))
    pq.write_table(table, folder / "rows.parquet")
    return {"tiles": len(rows), "accepted": int(verdicts["accepted"].sum())}


def filter_study(
    params: Params,
    work,
    device: str,
    filters_sha256: str,
    pool: Callable[[int], AbstractContextManager],
    made: Sequence[Path | str] = MADE,
    filters="models/filters",
    output: Path | str = "data/verdicts",
    reports: Path = Path("reports/filter"),
) -> dict:
    """Judge every synthetic tile. The verdicts are the synthetic store's rows with scores, `accepted` and reasons.

    Raises
    ------
    HistoloomError
        when of some class less than `filter.min_yield` passes. The verdicts are written all the same, to be looked at.
    """
    stores = made_stores(made)
    jobs = [
        FilterPart(
            part,
            store.folder.resolve(),
            Path(filters).resolve(),
            filters_sha256,
            device,
            work.parts.resolve(),
        )
        for store in stores
        for part in store.parts
    ]
    with pool(len(jobs)) as run:
        run(filter_part, jobs, "filter")
    work.promote_parts([job.part for job in jobs], output)
    metrics, every = {}, []
    for store in made_stores(made, rows_from=output):
        rows = store.rows()
        every.append(rows[rows["purpose"] == "augment"])
        if store.folder == Path(MADE[1]):
            metrics["woven"] = _funnel(rows)
        else:
            metrics |= {purpose: _funnel(part) for purpose, part in rows.groupby("purpose")}
    write_json(reports / "metrics.json", metrics)
    of_all = _funnel(pd.concat(every))["by_class"] if every else {}
    for classes in (
        metrics.get("augment", {}).get("by_class", {}),
        of_all,
    ):  # slides don't excuse what fails tile by tile
        _check_yields(classes, params.filter.min_yield)
    return metrics


def _check_yields(classes: dict[str, dict], least: float) -> None:
    """Refuse verdicts that leave next to nothing of a class that was made to augment, tile by tile or in slides."""
    poor = {c: n for c, n in classes.items() if n["made"] >= _LEAST_JUDGED and n["accepted"] < least * n["made"]}
    if poor:
        said = "; ".join(
            f"'{name}': {n['accepted']} of {n['made']} ({', '.join(f'{r}: {k}' for r, k in n['rejected_for'].items() if k)})"
            for name, n in poor.items()
        )
        raise HistoloomError(
            f"Too little passed the filters of {said}. filter.min_yield asks for {least:.0%} of each class, so that no class "
            "vanishes unseen. Look with: histoloom preview data/synthetic --rows data/verdicts. Then train the generator longer, raise "
            "train_filters.false_rejection of what rejects most, or lower filter.min_yield."
        )


def _funnel(rows: pd.DataFrame) -> dict:
    def rejected_for(part: pd.DataFrame) -> dict[str, int]:
        reasons = part["reject_reasons"].str
        used = [f.reason for name, f in FILTERS.items() if f"{name}_score" in part]
        return {reason: int(reasons.contains(reason, regex=False).sum()) for reason in used}

    by_class = {
        label: {"made": len(part), "accepted": int(part["accepted"].sum()), "rejected_for": rejected_for(part)}
        for label, part in rows.groupby(rows["label"].fillna("unlabelled"))
    }
    facts = {"made": len(rows), "accepted": int(rows["accepted"].sum()), "rejected_for": rejected_for(rows)}
    return facts | {"by_class": by_class}
