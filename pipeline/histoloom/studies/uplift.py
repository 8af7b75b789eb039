"""Train learners of labels or masks with and without synthetic tiles, and say whether these helped."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from histoloom.cluster import uses_torch
from histoloom.config import Params
from histoloom.data.codes import known_salt
from histoloom.data.commit import command_files, commit_part, digest, hash_tree, link_tree, write_json
from histoloom.data.lineage import check_generators, check_unseen
from histoloom.data.lineage_match import grid_of
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.learners.learner import Training, learner_of
from histoloom.progress import console
from histoloom.quality.interval_picture import Measured, draw_intervals
from histoloom.studies.stage_work import Work
from histoloom.training.run import TrainingRun
from histoloom.uplift.analysis import Analysis, Arm, ArmKey, analyse
from histoloom.uplift.protocol import Trial, choose, protocol_of, trials_of
from histoloom.uplift.tasks import counted
from histoloom.uplift.tiles import UpliftTiles, check_tiles, left_out_arms, load_tiles

PREDICTIONS = "predictions.parquet"
ATTEMPTS = "uplift.jsonl"


class UpliftMetrics(Analysis, total=False):
    """What the stage reports.

    labels : how much of the training set's labels everything saw. left_out : arm to why it was not tried.
    protocols_tried : different ones that this study has begun.
    """

    task: str
    labels: dict[str, Any]
    left_out: dict[str, str]
    classes_not_in_train: dict[str, int]
    steps: int
    protocols_tried: int
    test_split: str


def run(work: Work) -> None:
    """Train every model of the protocol, and say what synthetic tiles changed.

    The protocol is written before anything is predicted. What was trained before is taken up.

    Raises
    ------
    HistoloomError
        when there are too few tiles to test on, one label alone, or no mask; when the learner doesn't learn the task; and when a
        generator was taught what is tested on.
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
    whose = tiles.real.rows(), known_salt(study.salt), grid_of(params.tile.split)
    check_generators(tiles.synthetic_stores, *whose)
    read = _what_is_read(work)
    if record := learner.saw(study.models, config.learner_config):
        check_unseen(f"The learner '{config.learner_name}'", record, *whose)
    left_out = left_out_arms(trials_of(config), tiles)
    for arm, why in left_out.items():
        console.print(f"uplift: '{arm}' is left out, because {why}", markup=False)
    trials = [trial for trial in trials_of(config) if trial.arm not in left_out]
    labels = params.tile.labels.model_dump(include={"fraction", "fraction_of", "unlabelled"})
    protocol = {**protocol_of(config, trials, tiles.test, tiles.task, labels), **read}
    write_json(work.reports / "protocol.json", protocol)
    tried = _count(study.own / ATTEMPTS, digest(protocol))
    trained_on = _train(work, trials, read)
    found = analyse(_predictions(study, trials, tiles), tiles.task, config.arms[0], params.seed)
    for result in found["arms"]:
        result["trained_on"] = trained_on[result["arm"], result["ratio"]]
    metrics: UpliftMetrics = {
        **found,
        "task": config.task,
        "labels": labels,
        "left_out": left_out,
        "classes_not_in_train": tiles.not_in_train,
        "steps": config.steps,
        "protocols_tried": tried,
        "test_split": tiles.test["split"].iloc[0],
    }
    work.write_metrics({**metrics})
    _draw(work, found["arms"], found["primary_measure"])


def _draw(work: Work, arms: list[Arm], measure: str) -> None:
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
    own = params.uplift.model_dump(exclude={"arms", "ratios", "seeds"})
    key = digest([own, params.tile.labels.model_dump(), params.tile.masks.model_dump(), read, work.code])[:16]
    where = (Study(study.root.resolve()), params, work.device, work.parts.resolve(), training.resolve())
    jobs = [UpliftPart(trial, key, *where) for trial in trials]
    with work.pool(len(jobs)) as call:
        infos = call(uplift_part, jobs, "uplift")

    def publish(staged: Path) -> None:
        for job in jobs:
            link_tree(work.parts / job.part, staged / job.trial.name)

    work.promote(publish, study.uplift)
    work.keep_parts([job.part for job in jobs])
    shutil.rmtree(training, ignore_errors=True)
    return {(trial.arm, trial.ratio): info for trial, info in zip(trials, infos)}


def _predictions(study: Study, trials: list[Trial], tiles: UpliftTiles) -> dict[ArmKey, list[np.ndarray]]:
    out: dict[ArmKey, list[np.ndarray]] = {}
    columns = list(tiles.task.columns)
    for trial in trials:
        table = pd.read_parquet(study.uplift / trial.name / PREDICTIONS).set_index("tile_id").loc[tiles.test["tile_id"]]
        out.setdefault((trial.arm, trial.ratio), []).append(table[columns].to_numpy())
    return out


@dataclass(frozen=True)
class UpliftPart:
    """One task of `uplift`: plain data, with paths that every worker can read.

    key : of all that decides what a model predicts, but for the trial itself: another seed, arm or ratio trains none anew.
    """

    trial: Trial
    key: str
    study: Study
    params: Params
    device: str
    parts: Path
    work: Path

    @property
    def part(self) -> str:
        return f"{self.trial.name}@{self.key}"


@uses_torch
def uplift_part(job: UpliftPart) -> dict[str, int]:
    """Train one model and predict the test tiles with it, unless that was done."""
    return commit_part(job.parts, job.part, lambda folder: _write_predictions(job, folder))["info"]


def _write_predictions(job: UpliftPart, folder: Path) -> dict[str, int]:
    tiles = load_tiles(job.study, job.params)
    real, synthetic = choose(job.trial, tiles.train, tiles.synthetic, job.params.seed)
    in_turn = job.trial.in_turn
    rows = pd.concat([synthetic, real] if in_turn else [real, synthetic], ignore_index=True)
    found = _predicted(job, tiles, rows, len(synthetic) if in_turn else 0)
    if tiles.masks:
        found = counted(found, tiles.read(tiles.test, "mask"), len(tiles.classes))
    table = pd.DataFrame(found, columns=list(tiles.task.columns)).assign(tile_id=tiles.test["tile_id"])
    table.to_parquet(folder / PREDICTIONS)
    return {"real": len(real), "synthetic": len(synthetic)}


def _predicted(job: UpliftPart, tiles: UpliftTiles, rows: pd.DataFrame, first: int) -> np.ndarray:
    """What a learner that is fitted to these rows says of the test tiles: probabilities, or masks. first : rows that it learns from first."""
    learner = learner_of(job.params.uplift.learner_name, job.params.uplift.task)
    fitted = learner.fit(
        tiles.read(rows),
        tiles.truth(rows),
        _training(job, tiles, learner.rate(job.params.uplift.learner_config), first),
    )
    return fitted.predict(tiles.read(tiles.test), tiles.test["tile_id"].tolist())


def _training(job: UpliftPart, tiles: UpliftTiles, rate: float, first: int) -> Training:
    """What every model of the experiment is asked to do, whatever it learns."""
    config, seed = job.params.uplift, int(digest([job.params.seed, job.trial.seed])[:7], 16)
    steps = config.steps
    run = TrainingRun(
        "uplift", steps, config.learning_rate or rate, seed, job.work / job.part, steps, warmup_steps=steps // 10,
        device=job.device,
    )  # fmt: skip
    return Training(
        config.learner_name, config.task, tiles.classes, run, config.batch_size, config.image_px, augment=job.trial.classical,
        told=config.learner_config, command=config.command, models=job.study.models, first=first,
    )  # fmt: skip


def _count(path: Path, protocol: str) -> int:
    """Note that this protocol was begun, and say how many different ones this study has tried."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        stream.write(json.dumps({"protocol": protocol, "begun": now}) + "\n")
    lines = path.read_text(encoding="utf-8").splitlines()
    return len({json.loads(line)["protocol"] for line in lines})
