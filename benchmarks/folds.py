"""The folds of a cross-validation as one study: what all models say of the test tiles, analysed once."""

from __future__ import annotations

import json
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.studies import Study
from histoloom.config import Params
from histoloom.data.rows import held_out_rows
from histoloom.errors import HistoloomError
from histoloom.studies.uplift import PREDICTIONS
from histoloom.uplift.analysis import analyse, paired_difference
from histoloom.uplift.protocol import trials_of
from histoloom.uplift.tasks import Task, label_task, mask_task

CHANGE = ("difference", "interval", "interval_of_all")


class Predicted(NamedTuple):
    """What the models of all folds say of the test tiles, each tile predicted by the fold that held it out.

    arms : (arm, ratio) to the predictions of each seed, rows in the order of `rows`.
    """

    arms: dict[tuple[str, float], list[np.ndarray]]
    task: Task
    rows: pd.DataFrame


def predicted(studies: list[Study]) -> Predicted:
    """What the folds' `uplift` wrote, put together."""
    params = Params.model_validate({"seed": 0} | studies[0].params)
    tests, predictions = [], {}
    masks = params.uplift.task == "mask"
    for study in studies:
        rows = held_out_rows(study.tiles.rows())
        found = measured(study, "uplift")
        trials = [trial for trial in trials_of(params.uplift) if trial.arm not in found["left_out"]]
        first = pd.read_parquet(study.folder / "data/uplift" / trials[0].name / PREDICTIONS)
        tests.append(rows.set_index("tile_id", drop=False).loc[first["tile_id"]])
        for trial in trials:
            table = pd.read_parquet(study.folder / "data/uplift" / trial.name / PREDICTIONS).set_index("tile_id")
            values = table.loc[first["tile_id"]].to_numpy()
            predictions.setdefault((trial.arm, trial.ratio), {}).setdefault(trial.seed, []).append(values)
    test = pd.concat(tests, ignore_index=True)
    protocols = [json.loads((s.folder / "reports/uplift/protocol.json").read_text(encoding="utf-8")) for s in studies]
    classes = tuple(protocols[0]["classes"])  # those that a train split shows
    if any(p["classes"] != list(classes) for p in protocols):
        raise HistoloomError(
            "The folds' train splits show different classes, so their predictions can't be put together."
        )
    whole = {
        key: [np.concatenate(parts) for parts in seeds.values()]
        for key, seeds in predictions.items()
        if all(len(parts) == len(studies) for parts in seeds.values())
    }
    folds = np.repeat(np.arange(len(studies)), [len(rows) for rows in tests])
    return Predicted(whole, (mask_task if masks else label_task)(test, classes, folds), test)


def together(found: Predicted) -> dict:
    """One analysis of all folds; the first arm is what the others are compared with."""
    return {**analyse(found.arms, found.task, next(iter(found.arms))[0], 0)}


def over(first: Predicted, second: Predicted) -> dict:
    """By how much each arm with synthetic tiles is better in the second study, whose models had the same tests and seeds."""
    if first.rows["tile_id"].tolist() != second.rows["tile_id"].tolist():
        raise HistoloomError("The two studies were tested on different tiles, so their arms can't be compared.")
    shared = [key for key in first.arms if key[0] not in ("real", "real+classical") and key in second.arms]
    task, out = first.task, {}
    for key in shared:
        before, after = (np.stack([task.evidence(p) for p in part.arms[key]]) for part in (first, second))
        rng = np.random.default_rng(0)
        change = paired_difference(task, before, after, rng, len(shared))
        out[named(*key)] = {name: change[name] for name in CHANGE}
    return out


def named(arm: str, ratio: float) -> str:
    return arm + ("" if ratio == 1 else f"_ratio{ratio:g}")


def measured(study: Study, stage: str) -> dict:
    """What a stage of a study reported."""
    return json.loads((study.folder / "reports" / stage / "metrics.json").read_text(encoding="utf-8"))
