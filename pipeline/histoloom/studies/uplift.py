"""Train classifiers or segmenters with and without synthetic tiles, and say whether these helped."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.cluster import uses_torch
from histoloom.config import Params
from histoloom.data.ancestry import grid_of
from histoloom.data.codes import known_salt
from histoloom.data.commit import command_files, commit_part, digest, hash_tree, link_tree, write_json
from histoloom.data.lineage import check_generators
from histoloom.data.rows import held_out_rows
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.learners.classifier import learn, predict, training_run
from histoloom.learners.command import masks_by_command, probabilities_by_command
from histoloom.learners.segmenter import train_segmenter
from histoloom.progress import console
from histoloom.studies.work import Work
from histoloom.uplift.analysis import analyse
from histoloom.uplift.answers import Answers, counted, label_answers, mask_answers
from histoloom.uplift.protocol import Run, choose, protocol_of, runs_of

PREDICTIONS = "predictions.parquet"
ATTEMPTS = "uplift.jsonl"
_LEAST_TEST = 10


def run(work: Work) -> None:
    """Train every model of the protocol, and say what synthetic tiles changed.

    The protocol is written before anything is predicted. What was trained before is taken up.

    Raises
    ------
    HistoloomError
        when there are too few tiles to test on, one label alone, or no mask; and when a generator was taught what is tested on.
    """
    study, params, config = work.study, work.params, work.params.uplift
    data = _load(study, params)
    if config.seeds == 0:
        work.promote_parts([], study.uplift)
        work.write_metrics({"left_out": "uplift.seeds is 0"})
        return
    _check(data)
    check_generators(data.made, data.real.rows(), known_salt(study.salt), grid_of(params.tile.split))
    runs, left_out = _possible(runs_of(config), data)
    answers, labels = data.answers, params.tile.labels.model_dump(include={"fraction", "fraction_of", "unlabelled"})
    read = {
        "seed": params.seed,
        "command_files": command_files(config.command),
        "read_sha256": digest([hash_tree(study.root / place) for place in work.stage.inputs]),
    }
    protocol = protocol_of(config, runs, data.test, data.classes, answers.measure, labels) | read
    write_json(work.reports / "protocol.json", protocol)
    tried = _count(study.own / ATTEMPTS, digest(protocol))
    own = config.model_dump(exclude={"arms", "ratios", "seeds"})
    key = digest([own, params.tile.labels.model_dump(), params.tile.masks.model_dump(), read, work.code])[:16]
    training = work.root / "training"
    where = (Study(study.root.resolve()), params, work.device, work.parts.resolve(), training.resolve())
    jobs = [UpliftPart(run, key, *where) for run in runs]
    with work.pool(len(jobs)) as call:
        infos = call(uplift_part, jobs, "uplift")

    def publish(staged: Path) -> None:
        for job in jobs:
            link_tree(work.parts / job.part, staged / job.run.name)

    work.promote(publish, study.uplift)
    work.keep_parts([job.part for job in jobs])
    shutil.rmtree(training, ignore_errors=True)
    predictions: dict[tuple[str, float], list[np.ndarray]] = {}
    for run in runs:
        table = pd.read_parquet(study.uplift / run.name / PREDICTIONS).set_index("tile_id").loc[data.test["tile_id"]]
        predictions.setdefault((run.arm, run.ratio), []).append(table[list(answers.columns)].to_numpy())
    found = analyse(predictions, answers, data.test["split_group"].to_numpy(str), config.arms[0], params.seed)
    for arm in found["arms"]:
        info = next(i for run, i in zip(runs, infos) if (run.arm, run.ratio) == (arm["arm"], arm["ratio"]))
        arm["trained_on"] = info
    found |= {
        "task": config.task,
        "labels": labels,
        "left_out": left_out,
        "classes_not_in_train": data.not_in_train,
        "steps": config.steps,
        "protocols_tried": tried,
        "test_split": data.test["split"].iloc[0],
    }
    work.write_metrics(found)


@dataclass(frozen=True)
class UpliftPart:
    """One task of `uplift`: plain data, with paths that every worker can read.

    key : of all that decides what a run predicts, but for the run itself: another seed, arm or ratio trains no run anew.
    """

    run: Run
    key: str
    study: Study
    params: Params
    device: str
    parts: Path
    work: Path

    @property
    def part(self) -> str:
        return f"{self.run.name}@{self.key}"


@dataclass(frozen=True)
class _Tiles:
    """The rows that can answer the question, and the stores that their images lie in. classes : of labels, or of masks."""

    real: TileStore
    made: list[TileStore]
    train: pd.DataFrame
    synthetic: pd.DataFrame
    test: pd.DataFrame
    classes: tuple[str, ...]
    masks: bool
    not_in_train: dict[str, int]

    @property
    def answers(self) -> Answers:
        return (mask_answers if self.masks else label_answers)(self.test, self.classes)

    def read(self, rows: pd.DataFrame, name: str = "image") -> np.ndarray:
        """Of rows of any of the stores, in their order, (n, h, w[, 3]) uint8."""
        parts = [(store, rows[rows["store"] == number]) for number, store in enumerate([self.real, *self.made])]
        found = [store.read(part, name) for store, part in parts if len(part)]
        order = np.argsort(np.concatenate([np.flatnonzero(rows["store"] == n) for n in range(len(parts))]))
        return np.concatenate(found)[order]


def _load(study: Study, params: Params) -> _Tiles:
    real, stores = study.real(), study.synthetic_stores()
    rows = real.rows().assign(store=0)
    of_parts = [store.rows().assign(store=number) for number, store in enumerate(stores, 1)]
    synthetic = pd.concat(of_parts, ignore_index=True) if of_parts else rows.head(0).assign(accepted=True, purpose="")
    synthetic = synthetic[synthetic["purpose"] == "augment"].astype({"accepted": bool})
    masks = params.uplift.task == "mask"
    if masks:
        classes = params.tile.masks.classes
        kinds = [part[part["masked"].astype(bool)] for part in (rows, synthetic)]
    else:
        train = rows[rows["split"] == "train"]
        classes = tuple(c for c in params.tile.labels.classes if (train["label"] == c).any())
        kinds = [part[part["label"].isin(classes)] for part in (rows, synthetic)]
    known, synthetic = (part.reset_index(drop=True) for part in kinds)
    train, test = (part.reset_index(drop=True) for part in (known[known["split"] == "train"], held_out_rows(known)))
    missed = {} if masks else held_out_rows(rows)["label"].value_counts().drop(list(classes), errors="ignore").to_dict()
    return _Tiles(real, stores, train, synthetic, test, classes, masks, missed)


@uses_torch
def uplift_part(job: UpliftPart) -> dict:
    """Train one model and predict the test tiles with it, unless that was done."""
    return commit_part(job.parts, job.part, lambda folder: _write_predictions(job, folder))["info"]


def _write_predictions(job: UpliftPart, folder: Path) -> dict:
    data = _load(job.study, job.params)
    real, synthetic = choose(job.run, data.train, data.synthetic, job.params.seed)
    rows = pd.concat([real, synthetic], ignore_index=True)
    seed = int(digest([job.params.seed, job.run.seed])[:7], 16)
    found = (_masks if data.masks else _probabilities)(job, data, rows, seed)
    table = pd.DataFrame(found, columns=list(data.answers.columns)).assign(tile_id=data.test["tile_id"])
    table.to_parquet(folder / PREDICTIONS)
    return {"real": len(real), "synthetic": len(synthetic)}


def _probabilities(job: UpliftPart, data: _Tiles, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """(n, classes) of the test tiles."""
    config, work = job.params.uplift, job.work / job.part
    images, test = data.read(rows), data.read(data.test)
    if config.command:
        return probabilities_by_command(
            config, images, rows["label"].tolist(), test, data.test["tile_id"].tolist(), data.classes, seed, work
        )
    truth = rows["label"].map({name: number for number, name in enumerate(data.classes)}).to_numpy(np.int64)
    model = learn(
        config, images, truth, len(data.classes), classical=job.run.classical, seed=seed, work=work, device=job.device
    )
    return predict(model, test, config.image_px, job.device)


def _masks(job: UpliftPart, data: _Tiles, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """(n, 3 x classes) pixels of each test tile: of each class in both masks, found, and stated."""
    config, work = job.params.uplift, job.work / job.part
    images, masks, test = data.read(rows), data.read(rows, "mask"), data.read(data.test)
    if config.command:
        found = masks_by_command(config, images, masks, test, data.test["tile_id"].tolist(), seed, work)
    else:
        run = training_run(config, seed, work, job.device)
        model = train_segmenter(
            images, masks, len(data.classes), run, augment=job.run.classical, batch_size=config.batch_size
        )
        found = model.segment(test)
    return counted(found, data.read(data.test, "mask"), len(data.classes))


def _check(data: _Tiles) -> None:
    if data.masks and (not data.classes or data.train.empty):
        raise HistoloomError(
            "uplift.task is mask, and there are no train tiles with masks. Set tile.masks, or uplift.task: label."
        )
    if not data.masks and len(data.classes) < 2:
        raise HistoloomError(
            f"uplift needs two classes in the train split, and there are {len(data.classes)}. Label more, or set uplift.seeds: 0."
        )
    if len(data.test) < _LEAST_TEST:
        raise HistoloomError(
            f"uplift needs {'masks of' if data.masks else 'labelled'} held-out tiles to test on, and there are {len(data.test)}. "
            "Change tile.split, or set uplift.seeds: 0."
        )
    if data.masks and not np.isin(data.read(data.test, "mask"), range(1, len(data.classes) + 1)).any():
        raise HistoloomError(
            f"No test tile's mask shows any of {', '.join(data.classes)}, so there is nothing to find. Change tile.split, or set "
            "uplift.seeds: 0."
        )


def _possible(runs: list[Run], data: _Tiles) -> tuple[list[Run], dict[str, str]]:
    """The runs that there are tiles for, and why the other arms are left out."""
    accepted, left_out = data.synthetic[data.synthetic["accepted"]], {}
    lacking = [] if data.masks else [c for c in data.classes if c not in set(accepted["label"])]
    for run in runs:
        if run.has_synthetic and accepted.empty:
            left_out[run.arm] = "no synthetic tile was accepted"
        elif run.arm == "synthetic" and lacking:
            left_out[run.arm] = f"no synthetic tile shows {', '.join(lacking)}"
    for arm, why in left_out.items():
        console.print(f"uplift: '{arm}' is left out, because {why}", markup=False)
    return [run for run in runs if run.arm not in left_out], left_out


def _count(path: Path, protocol: str) -> int:
    """Note that this protocol was begun, and say how many different ones this study has tried."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        stream.write(json.dumps({"protocol": protocol, "begun": now}) + "\n")
    lines = path.read_text(encoding="utf-8").splitlines()
    return len({json.loads(line)["protocol"] for line in lines})
