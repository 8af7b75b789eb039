"""`histoloom plan`: what would be made, why, and what it would cost; nothing is written."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TypedDict

import click
from rich.table import Table

from histoloom.cluster import device, one_thread
from histoloom.data.held_out_classes import class_counts, lacking_in_words
from histoloom.data.plan import PURPOSES, GivenTiles, condition_sources, deficits, given_arrays, make_plan
from histoloom.data.study_folder import Study
from histoloom.data.tables import with_conditions
from histoloom.progress import results
from histoloom.sampling.estimate import estimate


class _Made(TypedDict):
    name: str
    wanted: int | str
    made: int


class DryRun(TypedDict):
    """What `sample` would make. notes : which classes val or test lack, in words. seconds, mib_at_most : None before a denoiser is trained."""

    classes: list[dict]
    requests: list[_Made]
    notes: list[str]
    tiles: dict[str, int]
    parts: int
    tiles_per_part: int
    device: str
    seconds: float | None
    mib_at_most: float | None


def print_dry_run(study: Study, *, as_json: bool) -> None:
    """Print what the plan would make, and what `sample` would take on this machine."""
    found = dry_run(study)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = Table("class or request", "train tiles", "wanted", "to be made", "why none")
    for d in found["classes"]:
        table.add_row(d["label"], str(d["train"]), str(d["wanted"]), str(d["made"]), d["reason"])
    for request in found["requests"]:
        table.add_row(request["name"], "", str(request["wanted"]), str(request["made"]))
    results.print(table)
    for note in found["notes"]:
        results.print(f"note: {note}", markup=False)
    said = ", ".join(
        f"{count} to {purpose}" for purpose, count in found["tiles"].items() if count or purpose != "predict"
    )
    results.print(f"tiles: {said}, in {found['parts']} parts of at most {found['tiles_per_part']}")
    if found["seconds"] is None:
        results.print("time: not known before a denoiser is trained (dvc repro train_denoiser)")
        return
    time = f"about {found['seconds'] / 60:.1f} min on one worker ({found['device']})"
    results.print(f"time: {time}; disk: at most {found['mib_at_most']:.0f} MiB")


def dry_run(study: Study) -> DryRun:
    """Make the plan, and estimate its cost."""
    params, store, where = study.params, study.real(), device(study.cluster)
    rows, classes = with_conditions(store.rows(), params), params.tile.labels.classes
    plan = make_plan(rows, params, lambda asked: store.read(asked, "mask"))
    given, first = GivenTiles(store, rows, params, given_arrays(store, params)), plan.head(params.plan.batch_size)
    with one_thread():
        cost = estimate(params, plan, lambda name: given.of(first)[name], study.models, where)
    made = {request.name: int((plan["request"] == request.name).sum()) for request in params.plan.requests}
    return DryRun(
        classes=[asdict(each) for each in deficits(condition_sources(rows, params), params.plan, classes)],
        requests=[_Made(name=each.name, wanted=each.tiles, made=made[each.name]) for each in params.plan.requests],
        notes=[
            *lacking_in_words(
                class_counts(rows, params.tile.labels.named), {*rows["split"]}, "tile", params.tile.split.group
            )
        ],
        tiles={purpose: int((plan["purpose"] == purpose).sum()) for purpose in PURPOSES},
        parts=int(plan["part"].nunique()),
        tiles_per_part=params.plan.batch_size * params.plan.batches_per_part,
        device=where,
        seconds=None if cost is None else cost.seconds,
        mib_at_most=None if cost is None else cost.mib_at_most,
    )
