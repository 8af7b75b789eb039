"""The folds of a cross-validation as one study: what all models say of val and test tiles, chosen and analysed once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.studies import Study
from histoloom.config import Params
from histoloom.data.rows import held_out_rows
from histoloom.errors import HistoloomError
from histoloom.uplift.analysis import ArmKey, Difference, analyse, paired_difference
from histoloom.uplift.choice import best_other, detectable
from histoloom.uplift.protocol import Trial, trials_of
from histoloom.uplift.tasks import Task, label_task, mask_task
from histoloom.uplift.trial import PREDICTIONS, VAL_PREDICTIONS

CHANGE = ("difference", "interval", "interval_of_all")


class Predicted(NamedTuple):
    """What the models of all folds say of tiles, each predicted by the fold that held it out.

    arms : (arm, ratio) to the predictions of each seed, rows in the order of `rows`.
    """

    arms: dict[ArmKey, list[np.ndarray]]
    task: Task
    rows: pd.DataFrame


class Chosen(NamedTuple):
    """What val decides of all folds together. detectable : the least difference on test that would be found four times of five."""

    other: ArmKey | None
    on: str
    detectable: float | None


def predicted(studies: Sequence[Study], split: str = "test") -> Predicted:
    """What the folds' `uplift` wrote of val or test, each arm at the learning rate that the fold's val chose, put together."""
    params = Params.model_validate({"seed": 0} | studies[0].params)
    file, masks = VAL_PREDICTIONS if split == "val" else PREDICTIONS, params.uplift.task == "mask"
    tests: list[pd.DataFrame] = []
    predictions: dict[ArmKey, dict[int, list[np.ndarray]]] = {}
    for study in studies:
        rows, trials = study.tiles.rows(), _chosen_trials(study, params)
        rows = (rows[rows["split"] == "val"] if split == "val" else held_out_rows(rows)).set_index(
            "tile_id", drop=False
        )
        first = pd.read_parquet(study.folder / "data/uplift" / trials[0].name / file)
        tests.append(rows.loc[first["tile_id"]])
        for trial in trials:
            table = pd.read_parquet(study.folder / "data/uplift" / trial.name / file).set_index("tile_id")
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


def chosen(studies: Sequence[Study], test: Predicted, reference: ArmKey) -> Chosen:
    """The arm that synthetic tiles must beat, by val of all folds; where there is no val, by the test tiles."""
    if any(measured(study, "uplift")["choice"]["chosen_on"] != "val" for study in studies):
        return Chosen(best_other(test.arms, test.task), "test", None)
    val = predicted(studies, "val")
    other = best_other(val.arms, val.task)
    seen = (
        detectable(val.arms, val.task, test.task.groups, (reference, other)) if other and other != reference else None
    )
    return Chosen(other, "val", seen)


def together(found: Predicted, other: ArmKey | None) -> dict:
    """One analysis of all folds; the first arm is what the others are compared with."""
    return {**analyse(found.arms, found.task, next(iter(found.arms))[0], 0, other)}


def between(first: Predicted, one: ArmKey, second: Predicted, other: ArmKey, comparisons: int) -> Difference:
    """By how much an arm is better than another one, of the same study or of another whose models had the same tests and seeds."""
    if first.rows["tile_id"].tolist() != second.rows["tile_id"].tolist():
        raise HistoloomError("The two studies were tested on different tiles, so their arms can't be compared.")
    task = first.task
    after, before = (
        np.stack([task.evidence(p) for p in part.arms[key]]) for part, key in ((first, one), (second, other))
    )
    return paired_difference(task, before, after, np.random.default_rng(0), comparisons)


def measured(study: Study, stage: str) -> dict:
    """What a stage of a study reported."""
    return json.loads((study.folder / "reports" / stage / "metrics.json").read_text(encoding="utf-8"))


def _chosen_trials(study: Study, params: Params) -> list[Trial]:
    rates = {(arm, ratio): rate for arm, ratio, rate in measured(study, "uplift")["choice"]["rates"]}
    return [t for t in trials_of(params.uplift) if (t.arm, t.ratio) in rates and rates[t.arm, t.ratio] == t.rate]
