"""Train learners of labels or masks with and without synthetic tiles, and say whether these helped."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histoloom.data.codes import known_salt
from histoloom.data.commit import command_files, digest, discard, hash_tree, link_tree, write_json
from histoloom.data.lineage import check_generators, check_unseen
from histoloom.data.lineage_match import grid_of
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.learners.learner import learner_of
from histoloom.learners.pretraining import StartsPretrained
from histoloom.progress import console
from histoloom.quality.interval_picture import Measured, draw_intervals
from histoloom.studies.stage_work import Work
from histoloom.uplift.analysis import Analysis, ArmKey, ArmMeasures, analyse
from histoloom.uplift.choice import Choice, RateKey, best_other, best_rates, detectable, measure_of
from histoloom.uplift.protocol import Trial, protocol_of, trials_of
from histoloom.uplift.tiles import UpliftTiles, check_tiles, left_out_arms, load_tiles
from histoloom.uplift.trial import PREDICTIONS, START, VAL_PREDICTIONS, UpliftPart, pretraining_part, uplift_part

ATTEMPTS = "uplift.jsonl"
CHOICE = "choice.json"


class UpliftMetrics(Analysis, total=False):
    """What the stage reports.

    labels : how much of the training set's labels everything saw. left_out : arm to why it was not tried.
    protocols_tried : different ones that this study has begun. choice : what val decided. asked : the arm that the question is about.
    accepted_of_made : the fraction of tiles made to augment that passed the filters.
    """

    task: str
    labels: dict[str, Any]
    left_out: dict[str, str]
    classes_not_in_train: dict[str, int]
    steps: int
    protocols_tried: int
    test_split: str
    choice: Choice
    asked: str | None
    accepted_of_made: float | None


def run(work: Work) -> None:
    """Train every model of the protocol, and say what synthetic tiles changed.

    The protocol is written before anything is predicted. What val decides is written before predictions of test tiles are read. What was
    trained before is taken up.

    Raises
    ------
    HistoloomError
        when there are too few tiles to test on, one label alone, or no mask; when the learner doesn't learn the task; when there
        is nothing to choose by; and when a generator was taught what is tested on.
    """
    study, params, config = work.study, work.params, work.params.uplift
    learner = learner_of(config.learner_name, config.task)
    tiles = load_tiles(study, params)
    if config.seeds == 0:
        work.promote_parts([], study.uplift)
        work.write_metrics({"left_out": "uplift.seeds is 0"})
        _draw(work, [], "")
        return
    check_tiles(tiles)
    if len(config.rates) > 1 and tiles.val.empty:
        raise HistoloomError(
            "uplift.learning_rate names several, and no tile of val is there to choose by. State one, or change tile.split so that there are "
            "tiles of val and of test."
        )
    whose = (
        tiles.real.rows(["split_group", "slide_id", "split"], optional=["patient_id", "dataset"]),
        known_salt(study.salt), grid_of(params.tile.split),
    )  # fmt: skip
    check_generators(tiles.synthetic_stores, *whose)
    read = _what_is_read(work)
    if record := learner.saw(study.models, config.learner_config):
        check_unseen(f"The learner '{config.learner_name}'", record, *whose)
    left_out = left_out_arms(trials_of(config), tiles, issubclass(learner, StartsPretrained))
    for arm, why in left_out.items():
        console.print(f"uplift: '{arm}' is left out, because {why}", markup=False)
    trials = [trial for trial in trials_of(config) if trial.arm not in left_out]
    labels = params.tile.labels.model_dump(include={"fraction", "fraction_of", "unlabelled"})
    protocol = {**protocol_of(config, trials, tiles.val, tiles.test, tiles.task, labels), **read}
    write_json(work.reports / "protocol.json", protocol)
    tried = _count(study.own / ATTEMPTS, digest(protocol))
    trained_on = _train(work, trials, read)
    choice, chosen, other = _chosen(study, trials, tiles, config.arms[0])
    write_json(work.reports / CHOICE, choice)
    found = analyse(
        _predictions(study, chosen, tiles.test, PREDICTIONS), tiles.task, config.arms[0], params.seed, other
    )
    for result in found["arms"]:
        result["trained_on"] = trained_on[result["arm"], result["ratio"]]
    accepted = tiles.synthetic["accepted"]
    metrics: UpliftMetrics = {
        **found,
        "task": config.task,
        "labels": labels,
        "left_out": left_out,
        "classes_not_in_train": tiles.not_in_train,
        "steps": config.steps,
        "protocols_tried": tried,
        "test_split": tiles.test["split"].iloc[0],
        "choice": choice,
        "asked": config.asked_arm,
        "accepted_of_made": float(accepted.mean()) if len(accepted) else None,
    }
    work.write_metrics({**metrics})
    _draw(work, found["arms"], found["primary_measure"])


def _draw(work: Work, arms: list[ArmMeasures], measure: str) -> None:
    """The arms' differences from the first, for `dvc plots`."""
    rows = [
        Measured(f"{arm['arm']}, ratio {arm['ratio']:g}", 100 * arm["difference"], _points(arm["interval"]))
        for arm in arms
        if "difference" in arm
    ]
    first = f" against '{arms[0]['arm']}'" if arms else ""
    axis_title = f"{measure.replace('_', ' ')}, points more than the first arm's"
    draw_intervals(rows, f"What synthetic tiles change{first}", axis_title, work.reports / "uplift.png")


def _points(interval: list[float]) -> tuple[float, float]:
    low, high = interval
    return 100 * low, 100 * high


def _what_is_read(work: Work) -> dict[str, Any]:
    """What decides the predictions beside the section's own params."""
    config, root = work.params.uplift, work.study.root
    own = learner_of(config.learner_name, config.task).reads(config.learner_config)
    if missing := [place for place in own if not (root / place).exists()]:
        raise HistoloomError(
            f"The learner '{config.learner_name}' needs {', '.join(missing)}, which is missing. Run: dvc repro uplift"
        )
    return {
        "seed": work.params.seed,
        "command_files": command_files(config.command),
        "read_sha256": digest([hash_tree(root / place) for place in (*work.stage.inputs, *own)]),
    }


def _train(work: Work, trials: list[Trial], read: dict[str, Any]) -> dict[ArmKey, dict[str, int]]:
    """Train the trials' models and publish their predictions; how many tiles of each source an arm was trained on."""
    study, params, training = work.study, work.params, work.root / "training"
    of_experiment = {"arms", "asked", "ratios", "seeds", "learning_rate", "pretraining"}
    own = params.uplift.model_dump(exclude=of_experiment)
    labels = [params.tile.labels.model_dump(), params.tile.masks.model_dump()]
    where = (Study(study.root.resolve()), params, work.device, work.parts.resolve(), training.resolve())

    def key(*more: Any) -> str:
        return digest([own, *labels, read, work.code, *more])[:16]

    first = UpliftPart(trials[0], key(params.uplift.pretraining.model_dump()), *where)
    started, plain = (
        replace(first, key=key(first.key), start=first.parts / first.pretraining / START),
        replace(first, key=key()),
    )
    jobs = [replace(started if trial.kind.pretrained else plain, trial=trial) for trial in trials]
    kept = [first.pretraining] if any(trial.kind.pretrained for trial in trials) else []
    mine = (*kept, *(job.part for job in jobs))
    for path in [*training.glob("*")]:
        if not path.name.startswith(mine):
            discard(path)  # of a run with other params that was broken off: its tiles would fill the disk
    if kept:
        with work.pool(1) as call:
            call(pretraining_part, [first], "uplift: pretraining")
    with work.pool(len(jobs)) as call:
        infos = call(uplift_part, jobs, "uplift")

    def publish(staged: Path) -> None:
        for job in jobs:
            link_tree(work.parts / job.part, staged / job.trial.name)

    work.promote(publish, study.uplift)
    work.keep_parts([*kept, *(job.part for job in jobs)])
    shutil.rmtree(training, ignore_errors=True)
    return {(trial.arm, trial.ratio): info for trial, info in zip(trials, infos)}


def _chosen(
    study: Study, trials: list[Trial], tiles: UpliftTiles, reference: str
) -> tuple[Choice, list[Trial], ArmKey | None]:
    """What val decides; where there is no val, the best of other arms is that on test, which is hard on synthetic tiles."""
    if tiles.val.empty:
        other = best_other(_predictions(study, trials, tiles.test, PREDICTIONS), tiles.task)
        rates = {(trial.arm, trial.ratio): trial.rate for trial in trials}
        choice: Choice = {
            "rates": [(*key, rate) for key, rate in rates.items()], "best_other": other[0] if other else None,
            "chosen_on": tiles.test["split"].iloc[0], "val": {}, "detectable": None,
        }  # fmt: skip
        return choice, trials, other
    task = tiles.val_task
    by_rate: dict[RateKey, list[np.ndarray]] = {}
    for trial in trials:
        found = _predictions(study, [trial], tiles.val, VAL_PREDICTIONS)
        by_rate.setdefault((trial.arm, trial.ratio, trial.rate), []).extend(*found.values())
    rates = best_rates(by_rate, task)
    val = {key: by_rate[*key, rate] for key, rate in rates.items()}
    other, base = best_other(val, task), next(key for key in val if key[0] == reference)
    seen = (
        None if other in (None, base) else detectable(val, task, tiles.test["split_group"].to_numpy(str), (base, other))
    )
    choice = {
        "rates": [(*key, rate) for key, rate in rates.items()], "best_other": other[0] if other else None, "chosen_on": "val",
        "val": {f"{arm}, ratio {ratio:g}": measure_of(task, found) for (arm, ratio), found in val.items()}, "detectable": seen,
    }  # fmt: skip
    return choice, [trial for trial in trials if rates[trial.arm, trial.ratio] == trial.rate], other


def _predictions(
    study: Study, trials: Sequence[Trial], rows: pd.DataFrame, file: str
) -> dict[ArmKey, list[np.ndarray]]:
    """Arm and ratio to what each seed's model says of the rows' tiles."""
    out: dict[ArmKey, list[np.ndarray]] = {}
    for trial in trials:
        table = pd.read_parquet(study.uplift / trial.name / file).set_index("tile_id").loc[rows["tile_id"]]
        out.setdefault((trial.arm, trial.ratio), []).append(table.to_numpy())
    return out


def _count(path: Path, protocol: str) -> int:
    """Note that this protocol was begun, and say how many different ones this study has tried."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        stream.write(json.dumps({"protocol": protocol, "begun": now}) + "\n")
    lines = path.read_text(encoding="utf-8").splitlines()
    return len({json.loads(line)["protocol"] for line in lines})
