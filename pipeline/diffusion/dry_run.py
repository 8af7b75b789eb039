"""What `plan --dry-run` prints."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from pipeline.config import Params
from pipeline.data.plan import GivenTiles, deficits, given_arrays, lenders_of, make_plan
from pipeline.data.store import TileStore
from pipeline.data.tables import with_conditions
from pipeline.diffusion.study import estimate
from pipeline.progress import console


def print_dry_run(params: Params, device: str, models: Path, tiles="data/tiles") -> None:
    """Print what the plan would make, and what `sample` would take on this machine."""
    store = TileStore(tiles)
    rows, classes = with_conditions(store.rows(), params), params.tile.labels.classes
    plan = make_plan(rows, params, lambda asked: store.read(asked, "mask"))
    table = Table("class or request", "train tiles", "wanted", "to be made", "why none")
    for d in deficits(lenders_of(rows, params), params.plan, classes):
        table.add_row(d.label, str(d.train), str(d.wanted), str(d.made), d.reason)
    for request in params.plan.requests:
        table.add_row(request.name, "", str(request.tiles), str(int((plan["request"] == request.name).sum())))
    console.print(table)
    made = int((plan["purpose"] == "augment").sum())
    console.print(
        f"{made} tiles to augment, {len(plan) - made} to evaluate, in {plan['part'].nunique()} parts "
        f"of at most {params.plan.batch_size * params.plan.batches_per_part}"
    )
    given = GivenTiles(store, rows, params, given_arrays(store, params))
    cost = estimate(params, plan, lambda name: given.of(plan.head(params.plan.batch_size))[name], models, device)
    if cost is None:
        console.print("time: not known before a denoiser is trained (dvc repro train_denoiser)")
        return
    console.print(
        f"time: about {cost['seconds_one_worker'] / 60:.1f} min on one worker ({device}); "
        f"disk: at most {cost['mib_at_most']:.0f} MiB"
    )
