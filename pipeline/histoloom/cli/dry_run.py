"""`histoloom plan`: what would be made, why, and what it would cost; nothing is written."""

from __future__ import annotations

from rich.table import Table

from histoloom.cluster import device, one_thread
from histoloom.data.plan import PURPOSES, GivenTiles, condition_sources, deficits, given_arrays, make_plan
from histoloom.data.study_folder import Study
from histoloom.data.tables import with_conditions
from histoloom.progress import console
from histoloom.sampling.estimate import estimate


def print_dry_run(study: Study) -> None:
    """Print what the plan would make, and what `sample` would take on this machine."""
    params, store, where = study.params, study.real(), device(study.cluster)
    rows, classes = with_conditions(store.rows(), params), params.tile.labels.classes
    plan = make_plan(rows, params, lambda asked: store.read(asked, "mask"))
    table = Table("class or request", "train tiles", "wanted", "to be made", "why none")
    for d in deficits(condition_sources(rows, params), params.plan, classes):
        table.add_row(d.label, str(d.train), str(d.wanted), str(d.made), d.reason)
    for request in params.plan.requests:
        table.add_row(request.name, "", str(request.tiles), str(int((plan["request"] == request.name).sum())))
    console.print(table)
    of = {purpose: int((plan["purpose"] == purpose).sum()) for purpose in PURPOSES}
    said = ", ".join(f"{count} to {purpose}" for purpose, count in of.items() if count or purpose != "predict")
    most = params.plan.batch_size * params.plan.batches_per_part
    console.print(f"tiles: {said}, in {plan['part'].nunique()} parts of at most {most}")
    given, first = GivenTiles(store, rows, params, given_arrays(store, params)), plan.head(params.plan.batch_size)
    with one_thread():
        cost = estimate(params, plan, lambda name: given.of(first)[name], study.models, where)
    if cost is None:
        console.print("time: not known before a denoiser is trained (dvc repro train_denoiser)")
        return
    disk = f"disk: at most {cost.mib_at_most:.0f} MiB"
    console.print(f"time: about {cost.seconds / 60:.1f} min on one worker ({where}); {disk}")
