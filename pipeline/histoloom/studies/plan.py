"""Decide what to synthesise and why: a row a tile, under conditions of the train split alone."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from histoloom.data.commit import commit_part
from histoloom.data.inputs import INPUTS, InputTiles
from histoloom.data.plan import CONDITIONS, PLAN, GivenTiles, condition_sources, deficits, given_arrays, make_plan
from histoloom.data.schema import PLAN_ROW, write_rows
from histoloom.data.study_folder import Study
from histoloom.data.tables import with_conditions
from histoloom.progress import console
from histoloom.studies.stage_work import Work


class PlanMetrics(TypedDict):
    """How many tiles are made for each purpose, in how many parts, of each class with the reason, for each request."""

    augment: int
    evaluate: int
    predict: int
    parts: int
    classes: dict[str, dict[str, Any]]
    requests: dict[str, int]


def run(work: Work) -> None:
    work.promote(lambda folder: work.write_metrics({**write_plan(work.study, folder)}), work.study.plan)


def write_plan(study: Study, output: Path) -> PlanMetrics:
    """Write the plan, the masks and pictures that its rows are given, and the tiles that they begin from; how many are made of each class, and why."""
    params, store = study.params, study.real()
    rows = with_conditions(store.rows(), params)
    plan = make_plan(rows, params, lambda asked: store.read(asked, "mask"))
    write_rows(plan, output / PLAN, PLAN_ROW)
    arrays = given_arrays(store, params)
    given = GivenTiles(store, rows, params, arrays)
    begun = InputTiles(store, rows, params, given.of)
    for part, members in plan.groupby("part", sort=True):
        if arrays:
            commit_part(output / CONDITIONS, part, partial(given.write, members))
        if members["input_ref"].notna().any():
            commit_part(output / INPUTS, part, partial(begun.write, members))
    wanting = deficits(condition_sources(rows, params), params.plan, params.tile.labels.classes)
    for d in wanting:
        if d.reason:
            console.print(f"plan: '{d.label}' is short of {d.wanted} tiles and none is made: {d.reason}", markup=False)
    if not plan["purpose"].isin(["augment", "predict"]).any():
        console.print(
            f"plan: nothing is made to augment: no class has fewer train tiles than plan.target ({params.plan.target}) wants, and no request asks for "
            "any. State plan.target, such as 200, or plan.requests.",
            markup=False,
        )
    return {
        "augment": int((plan["purpose"] == "augment").sum()),
        "evaluate": int((plan["purpose"] == "evaluate").sum()),
        "predict": int((plan["purpose"] == "predict").sum()),
        "parts": int(plan["part"].nunique()),
        "classes": {d.label: asdict(d) for d in wanting},
        "requests": {request.name: int((plan["request"] == request.name).sum()) for request in params.plan.requests},
    }
