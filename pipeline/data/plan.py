"""What to make and why: a row for each tile to be, grouped into microbatches of fixed size and into parts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import Params, Plan
from pipeline.data.commit import write_json
from pipeline.data.rows import held_out_rows
from pipeline.data.schema import PLAN_ROW, write_rows
from pipeline.data.seeds import item_seed
from pipeline.data.store import TileStore
from pipeline.errors import HistoloomError


@dataclass(frozen=True)
class Deficit:
    """Why a class is made: what the train split has, what is wanted, and how many are made for it."""

    label: str
    train: int
    wanted: int
    made: int


def deficits(rows: pd.DataFrame, config: Plan, classes: tuple[str, ...]) -> list[Deficit]:
    """Compare the train split's counts with the target balance.

    Raises
    ------
    HistoloomError
        for a class that is to be made and has no train tile whose conditions could be used.
    """
    counts = rows[rows["split"] == "train"]["label"].value_counts().reindex(list(classes), fill_value=0)
    present = counts[counts > 0]
    if present.empty:
        raise HistoloomError("The train split has no labelled tile, so nothing can be planned. Check tile.labels.")
    target = {"largest": int(present.max()), "median": int(present.median())}.get(config.target, config.target)
    out = []
    for label in config.classes or classes:
        have = int(counts[label])
        missing = max(0, target - have)
        if missing and have == 0:
            if config.classes:
                raise HistoloomError(
                    f"plan.classes names '{label}', of which the train split has no tile: there are no "
                    "conditions to make it from."
                )
            continue
        made = int(np.ceil(min(missing, config.max_per_class) * config.overdraw))
        out.append(Deficit(label, have, have + min(missing, config.max_per_class), made))
    return out


def make_plan(rows: pd.DataFrame, config: Plan, classes: tuple[str, ...], seed: int) -> pd.DataFrame:
    """Plan tiles whose conditions are those of real tiles.

    Parameters
    ----------
    rows : the real store's rows.

    Returns
    -------
    One row a tile (schema.PLAN_ROW). Rows to `augment` take conditions from the train split alone; rows to
    `evaluate` take them from the test split (val where there is no test) and can never be emitted.
    """
    train = rows[rows["split"] == "train"]
    pieces = [
        _draw(train[train["label"] == d.label], d.made, "augment", f"{d.label}-", seed)
        for d in deficits(rows, config, classes)
    ]
    held_out = held_out_rows(rows)
    if config.evaluation_tiles:
        if held_out.empty:
            raise HistoloomError(
                "plan.evaluation_tiles needs held-out conditions, and no tile is in test or val. Change "
                "tile.split, or set plan.evaluation_tiles: 0."
            )
        pieces.append(_draw(held_out, config.evaluation_tiles, "evaluate", "evaluate-", seed))
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        raise HistoloomError(
            "No class is short of tiles, so there is nothing to make. Raise plan.target or name plan.classes."
        )
    plan = pd.concat(pieces, ignore_index=True)
    return pd.concat(
        [_pack(plan[plan["purpose"] == purpose], purpose, config) for purpose in ("augment", "evaluate")],
        ignore_index=True,
    )[PLAN_ROW.names]


def _draw(source: pd.DataFrame, count: int, purpose: str, prefix: str, seed: int) -> pd.DataFrame:
    """Draw conditions in shuffled rounds, so that no tile lends its conditions twice before each has once."""
    order = np.random.default_rng(item_seed(seed, f"plan/{prefix}"))
    rounds = -(-count // max(len(source), 1))
    index = np.concatenate([order.permutation(len(source)) for _ in range(rounds)])[:count] if count else []
    chosen = source.iloc[np.asarray(index, int)]
    ids = [f"{prefix}{number:06d}" for number in range(len(chosen))]
    return pd.DataFrame(
        {
            "tile_id": ids,
            "seed": np.array([item_seed(seed, name) for name in ids], np.uint64),
            "purpose": purpose,
            "label": chosen["label"].to_numpy(),
            "caption": chosen["caption"].to_numpy(),
            "condition_ref": chosen["tile_id"].to_numpy(),
            "split_group": chosen["split_group"].to_numpy(),
            "split": chosen["split"].to_numpy(),
        }
    )


def _pack(plan: pd.DataFrame, purpose: str, config: Plan) -> pd.DataFrame:
    place = np.arange(len(plan))
    batch = place // config.batch_size
    part = [f"{purpose}-{b // config.batches_per_part:05d}" for b in batch]
    return plan.assign(slot=place % config.batch_size, batch=batch % config.batches_per_part, part=part)


def plan_study(params: Params, output: Path, reports: Path, tiles="data/tiles") -> dict:
    """Write the plan and say why each class is made."""
    rows = TileStore(tiles).rows()
    classes = params.tile.labels.classes
    plan = make_plan(rows, params.plan, classes, params.seed)
    write_rows(plan, output / "plan.parquet", PLAN_ROW)
    metrics = {
        "augment": int((plan["purpose"] == "augment").sum()),
        "evaluate": int((plan["purpose"] == "evaluate").sum()),
        "parts": int(plan["part"].nunique()),
        "classes": {d.label: asdict(d) for d in deficits(rows, params.plan, classes)},
    }
    write_json(reports / "metrics.json", metrics)
    return metrics
