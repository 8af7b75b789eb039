"""What the `train_filters` and `filter` stages do with a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.conditions.features import load_extractor
from pipeline.config import Params
from pipeline.data.commit import commit_part, write_json
from pipeline.data.rows import spread, train_rows, val_rows
from pipeline.data.schema import REJECT_REASONS
from pipeline.data.store import MADE, TileStore, made_stores
from pipeline.models.lineage import seen
from pipeline.quality.filters import Filters, load_filters, train_filters

_FILTER_FEATURES = "efficientnet-lite0"
_MOST_TRAIN_TILES = 20000


def train_study_filters(
    params: Params, work, device: str, reports: Path, tiles="data/tiles", output="models/filters"
) -> None:
    store = TileStore(tiles)
    train, held_out = train_rows(store), val_rows(store, 1000)
    train = spread(train, _MOST_TRAIN_TILES).reset_index(drop=True)
    extractor = load_extractor(_FILTER_FEATURES, device)

    def write(folder: Path) -> None:
        filters, metrics = train_filters(
            train,
            store.read(train),
            held_out,
            store.read(held_out),
            params.tile.labels.classes,
            params.train_filters,
            extractor,
            params.seed,
        )
        filters.save(folder)
        seen(train).save(folder)
        write_json(folder / "extractor.json", extractor.record)
        write_json(reports / "metrics.json", metrics)

    work.promote(write, output)


@dataclass(frozen=True)
class FilterPart:
    """One task of `filter`."""

    part: str
    store: Path
    filters: Path
    filters_sha256: str
    use: tuple[str, ...]
    device: str
    parts: Path


@lru_cache(maxsize=1)
def _filters(folder: Path, sha256: str) -> Filters:
    return load_filters(folder)


def filter_part(job: FilterPart) -> dict:
    """Score and judge one part, unless its verdicts are there."""
    return commit_part(job.parts, job.part, lambda folder: _write_verdicts(job, folder))["info"]


filter_part.uses_torch = True


def _write_verdicts(job: FilterPart, folder: Path) -> dict:
    store = TileStore(job.store)
    table = pq.read_table(job.store / job.part / "rows.parquet")
    rows = table.to_pandas().assign(part=job.part, index=np.arange(table.num_rows))
    filters, extractor = _filters(job.filters, job.filters_sha256), load_extractor(_FILTER_FEATURES, job.device)
    verdicts = filters.judge(filters.scores(store.read(rows), rows["label"].tolist(), extractor), job.use)
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
    """Judge every synthetic tile. The verdicts are the synthetic store's rows with scores, `accepted` and reasons."""
    stores = made_stores(made)
    jobs = [
        FilterPart(
            part,
            store.folder.resolve(),
            Path(filters).resolve(),
            filters_sha256,
            params.filter.use,
            device,
            work.parts.resolve(),
        )
        for store in stores
        for part in store.parts
    ]
    with pool(len(jobs)) as run:
        run(filter_part, jobs, "filter")
    work.promote_parts([job.part for job in jobs], output)
    metrics = {}
    for store in made_stores(made, rows_from=output):
        rows = store.rows()
        if store.folder == Path(MADE[1]):
            metrics["woven"] = _funnel(rows)
        else:
            metrics |= {purpose: _funnel(part) for purpose, part in rows.groupby("purpose")}
    write_json(reports / "metrics.json", metrics)
    return metrics


def _funnel(rows: pd.DataFrame) -> dict:
    reasons = {
        name: int(rows["reject_reasons"].str.contains(reason, regex=False).sum())
        for name, reason in REJECT_REASONS.items()
    }
    by_class = {
        label: {"made": len(part), "accepted": int(part["accepted"].sum())}
        for label, part in rows.groupby(rows["label"].fillna("unlabelled"))
    }
    return {"made": len(rows), "accepted": int(rows["accepted"].sum()), "rejected_for": reasons, "by_class": by_class}
