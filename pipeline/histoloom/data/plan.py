"""What to make and why: a row for each tile to be, grouped into microbatches of fixed size and into parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from histoloom.config import Params, Plan
from histoloom.data.inputs import CONDITION_COLUMNS, with_likes, with_program
from histoloom.data.requests import ReadMasks, changed, chosen, edited_layouts
from histoloom.data.rows import held_out_rows, in_rounds, shows_mask
from histoloom.data.schema import PLAN_ROW
from histoloom.data.seeds import item_seed
from histoloom.data.store import TileStore, write_arrays
from histoloom.errors import HistoloomError
from histoloom.registry import registered

PURPOSES = ("augment", "evaluate", "predict")
PLAN, CONDITIONS = "plan.parquet", "conditions"
EVALUATION = "evaluate"
"""The request of tiles that are drawn to measure the generator by, under conditions as the held-out tiles have them."""


_NO_SOURCE = "no train tile can be a source of its conditions"


@dataclass(frozen=True)
class Deficit:
    """Why a class is made: what the train split has, what is wanted, how many are made for it, and why none where none can be."""

    label: str
    train: int
    wanted: int
    made: int
    reason: str = ""


def deficits(rows: pd.DataFrame, config: Plan, classes: tuple[str, ...]) -> list[Deficit]:
    """Compare the train split's counts with the target balance.

    A class that has no train tile whose conditions could be used is among them, with the reason and none to be made.

    Raises
    ------
    HistoloomError
        when plan.classes names such a class, or there is no other.
    """
    if config.target == "none":
        return []
    counts = rows[rows["split"] == "train"]["label"].value_counts().reindex(list(classes), fill_value=0)
    present = counts[counts > 0]
    if present.empty:
        raise HistoloomError("The train split has no labelled tile, so nothing can be planned. Check tile.labels.")
    target = config.target
    if isinstance(target, str):
        target = int(present.max() if target == "largest" else present.median())
    if lost := [f"'{label}'" for label in config.classes if not counts[label]]:
        raise HistoloomError(
            f"plan.classes names {', '.join(lost)}, of which the train split has no tile: there are no conditions to make it from."
        )
    out = []
    for label in config.classes or classes:
        have = int(counts[label])
        missing = max(0, target - have)
        if missing and have == 0:
            out.append(Deficit(label, 0, min(missing, config.max_per_class), 0, _NO_SOURCE))
            continue
        made = int(np.ceil(min(missing, config.max_per_class) * config.overdraw))
        out.append(Deficit(label, have, have + min(missing, config.max_per_class), made))
    return out


def make_plan(rows: pd.DataFrame, params: Params, masks: ReadMasks) -> pd.DataFrame:
    """Plan tiles whose conditions are those of real tiles, changed where a request says so.

    Parameters
    ----------
    rows : the real store's rows, with the columns of `tables.with_conditions`.
    masks : rows to their masks (n, h, w); asked only by requests that say what a tile contains.

    Returns
    -------
    One row a tile (schema.PLAN_ROW). Rows to `augment` take conditions from the train split alone; rows to
    `evaluate` take them from the test split (val where there is no test) and can never be emitted. Rows to `predict` read tiles of
    any split; what is made of them goes to a store of its own.
    """
    pieces = [piece for piece in _drawn(rows, params, masks) if len(piece)]
    if not pieces:
        raise HistoloomError(
            "No class that train shows is short of tiles, so there is nothing to make. Raise plan.target, name plan.classes, or state "
            "plan.requests."
        )
    plan = pd.concat(pieces, ignore_index=True)
    packed = [_pack(rows, name, params.plan) for name, rows in _by_program(plan)]
    return pd.concat(packed, ignore_index=True)[PLAN_ROW.names]


def _by_program(plan: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows that are run alike, and the name of their parts."""
    for purpose in PURPOSES:
        mine = plan[plan["purpose"] == purpose]
        simple = mine["program"] == ""
        yield purpose, mine[simple]
        for request, rows in mine[~simple].groupby("request", sort=False):
            yield f"{purpose}-{request}", rows


def condition_sources(rows: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The rows whose conditions may be taken: an unknown mask asks for nothing, and a predicted one measures nothing."""
    return rows[shows_mask(rows)] if "mask" in _read(params) else rows


def _drawn(rows: pd.DataFrame, params: Params, masks: ReadMasks) -> Iterator[pd.DataFrame]:
    """The tiles of each class in deficit, of each request, and of the evaluation."""
    config, seed, sources = params.plan, params.seed, condition_sources(rows, params)
    train, held_out = sources[sources["split"] == "train"], sources[sources.index.isin(held_out_rows(rows).index)]
    for deficit in deficits(sources, config, params.tile.labels.classes):
        yield _draw(train[train["label"] == deficit.label], deficit.made, "augment", deficit.label, seed)
    pools = {"augment": train, "evaluate": held_out, "predict": sources}
    alike = {"augment": rows[rows["split"] == "train"], "evaluate": held_out_rows(rows), "predict": rows}
    for request in config.requests:
        pool = pools[request.purpose]
        of_request = chosen(pool, request, request.where, params, masks)
        drawn = _draw(of_request, request.tiles, request.purpose, request.name, seed)
        begin_from = chosen(pool, request, request.start.where, params, masks) if request.start.where else None
        likes = chosen(alike[request.purpose], request, request.like, params, masks) if request.like else None
        made = with_likes(with_program(drawn, request, begin_from, sources, seed), request, likes, seed)
        yield changed(made, request, train, params)
    if config.evaluation_tiles:
        if held_out.empty:
            split = held_out_rows(rows)["split"].unique()
            fact = f"no tile of {split[0]} has an annotated mask" if len(split) else "no tile is in test or val"
            raise HistoloomError(
                f"plan.evaluation_tiles needs held-out conditions, and {fact}. Change tile.split, or set plan.evaluation_tiles: 0."
            )
        yield _draw(held_out, config.evaluation_tiles, "evaluate", EVALUATION, seed)


def _draw(sources: pd.DataFrame, count: int | Literal["all"], purpose: str, request: str, seed: int) -> pd.DataFrame:
    """Draw sources in shuffled rounds, or all in their order."""
    if count == "all":
        drawn = sources
    else:
        drawn = in_rounds(sources, count, np.random.default_rng(item_seed(seed, f"plan/{request}-")))
    ids = [f"{request}-{number:06d}" for number in range(len(drawn))]
    rows = drawn[[*CONDITION_COLUMNS, "split_group", "split"]].reset_index(drop=True)
    seeds, sources = np.array([item_seed(seed, name) for name in ids], np.uint64), drawn["tile_id"].to_numpy()
    rows = rows.assign(tile_id=ids, seed=seeds, purpose=purpose, request=request, condition_ref=sources)
    nothing = dict.fromkeys(("input_ref", "input_group", "input_conditions", "like_ref", "like_group"))
    return rows.assign(program="", **nothing)


def _pack(plan: pd.DataFrame, name: str, config: Plan) -> pd.DataFrame:
    place = np.arange(len(plan))
    batch = place // config.batch_size
    part = [f"{name}-{b // config.batches_per_part:05d}" for b in batch]
    return plan.assign(slot=place % config.batch_size, batch=batch % config.batches_per_part, part=part)


def given_arrays(store: TileStore, params: Params) -> tuple[str, ...]:
    """Which of a tile's arrays its conditions are made of, and so go into the plan."""
    return tuple(name for name, needed in _read(params).items() if needed or store.has_everywhere(name))


def _read(params: Params) -> dict[str, bool]:
    """The arrays of a tile that conditions are made of, to whether they must be there; without those that a model before made."""
    found: dict[str, bool] = {}
    for links in params.chains().values():
        made: tuple[str, ...] = ()
        for link in links.values():
            for condition in (registered("condition", name) for name in link.train_denoiser.conditions):
                found |= {name: True for name in condition.reads if name not in made}
                found |= {name: False for name in condition.carries if name not in (*made, *found)}
            if len(links) > 1:
                made += registered("target", link.train_denoiser.target.name).makes
    return found


@dataclass(frozen=True)
class GivenTiles:
    """The arrays that a plan's rows are given: those of their sources, edited where a request says so."""

    store: TileStore
    rows: pd.DataFrame
    params: Params
    names: tuple[str, ...]

    @cached_property
    def _by_id(self) -> pd.DataFrame:
        return self.rows.set_index("tile_id", drop=False)

    def of(self, plan: pd.DataFrame) -> dict[str, np.ndarray]:
        """Name to (n, h, w[, 3])."""
        sources = self._by_id.loc[plan["condition_ref"]]
        arrays = {name: self.store.read(sources, name) for name in self.names}
        if "image" in arrays and plan["like_ref"].notna().any():
            arrays["image"] = self.store.read(self._by_id.loc[plan["like_ref"].fillna(plan["condition_ref"])])
        if "mask" in arrays:
            arrays |= edited_layouts(arrays, plan, self.store, self.rows, self.params)
        return arrays

    def write(self, plan: pd.DataFrame, folder: Path) -> dict[str, int]:
        """Write a part of the plan; how many tiles it has."""
        return write_arrays(folder, self.of(plan))


def planned_tiles(plan: Path, part: str, name: str) -> np.ndarray:
    """An array of the tiles that a part of the plan is given, in its rows' order."""
    return np.asarray(TileStore(plan / CONDITIONS).array(part, name)[:])


def planned_masks(plan: Path) -> Sequence[str]:
    """Which masks the plan's tiles are given, and so have."""
    if not (plan / CONDITIONS).is_dir():
        return ()
    store = TileStore(plan / CONDITIONS)
    return [name for name in ("mask", "instance", "edge") if store.has(name)]
