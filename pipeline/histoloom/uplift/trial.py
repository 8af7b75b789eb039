"""One model of the experiment: its tiles gathered, trained on, and what it says of held-out tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors.torch import save_file

from histoloom.cluster import uses_torch
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config import Params
from histoloom.data.commit import commit_part, digest, discard
from histoloom.data.mapped import AT_ONCE, discard_unpacked, mapped_rows, name_of_rows
from histoloom.data.rows import spread, spread_by
from histoloom.data.store import UNKNOWN
from histoloom.data.study_folder import Study
from histoloom.learners.learner import Learner, Training, learner_of
from histoloom.learners.pretraining import StartsPretrained, pretrain
from histoloom.training.run import TrainingRun
from histoloom.uplift.protocol import Trial, choose
from histoloom.uplift.retrieval import most_alike, retrieved
from histoloom.uplift.tasks import counted
from histoloom.uplift.tiles import UpliftTiles, load_tiles

PREDICTIONS, VAL_PREDICTIONS = "predictions.parquet", "val.parquet"
START = "encoder.safetensors"
_RETRIEVED_BY = "efficientnet-lite0"
_MOST_COMPARED = 20_000
"""At most so many tiles of each label, and so many unlabelled ones in all, are compared by retrieval."""
_PREDICTED = 1024
"""Tiles that are predicted and counted together."""
_SURE = 0.7
"""A pixel of a retrieved tile teaches what was found there with at least this probability."""


@dataclass(frozen=True)
class UpliftPart:
    """One task of `uplift`: plain data, with paths that every worker can read.

    key : of all that decides what a model predicts, but for the trial itself: another seed, arm or ratio trains none anew.
    start : file of pretrained weights, for arms that begin from them.
    """

    trial: Trial
    key: str
    study: Study
    params: Params
    device: str
    parts: Path
    work: Path
    start: Path | None = None

    @property
    def part(self) -> str:
        return f"{self.trial.name}@{self.key}"

    @property
    def pretraining(self) -> str:
        """The part that holds the weights of arms that begin from pretrained ones."""
        return f"pretraining@{self.key}"

    @property
    def learner(self) -> type[Learner]:
        return learner_of(self.params.uplift.learner_name, self.params.uplift.task)


class _Taught(NamedTuple):
    """What a model is taught. The pixels lie in files, which are mapped.

    first : of the tiles, those that are learnt from in the first half of the steps. extra : (n,) which are synthetic or retrieved.
    """

    images: np.ndarray
    truth: np.ndarray
    first: int
    counts: dict[str, int]
    extra: np.ndarray | None = None


@uses_torch
def uplift_part(job: UpliftPart) -> dict[str, int]:
    """Train one model and predict the val and test tiles with it, unless that was done."""
    record = commit_part(job.parts, job.part, lambda folder: _write_predictions(job, folder))
    discard(job.work / job.part)
    return record["info"]


@uses_torch
def pretraining_part(job: UpliftPart) -> dict[str, int]:
    """Train the learner's encoder without labels on all train tiles, unless that was done."""
    return commit_part(job.parts, job.pretraining, lambda folder: _write_start(job, folder))["info"]


def _write_start(job: UpliftPart, folder: Path) -> dict[str, int]:
    told, tiles, learner = job.params.uplift.pretraining, load_tiles(job.study, job.params), job.learner
    assert issubclass(learner, StartsPretrained)
    rows = tiles.every_train
    run = TrainingRun(
        "pretraining", told.steps, told.learning_rate, _seed(job), job.work / job.pretraining, max(1, told.steps // 4),
        warmup_steps=told.steps // 10, device=job.device,
    )  # fmt: skip
    save_file(pretrain(learner, _training(job, tiles, run), told, tiles.real, rows), folder / START)
    discard_unpacked(run.checkpoints)
    return {"tiles": len(rows)}


def _write_predictions(job: UpliftPart, folder: Path) -> dict[str, int]:
    tiles = load_tiles(job.study, job.params)
    taught = _taught(job, tiles)
    fitted = _fitted(job, tiles, taught)
    asked = pd.concat([tiles.test, tiles.val], ignore_index=True)
    apart = [asked] if job.learner.predicts_once else [tiles.test, tiles.val]
    found = np.concatenate([part for rows in apart for part in _said(job, tiles, fitted, rows)])
    table = pd.DataFrame(found, columns=list(tiles.task.columns)).assign(tile_id=asked["tile_id"].to_numpy())
    for name, rows in ((PREDICTIONS, table[: len(tiles.test)]), (VAL_PREDICTIONS, table[len(tiles.test) :])):
        if len(rows):
            rows.reset_index(drop=True).to_parquet(folder / name)
    return taught.counts


def _said(job: UpliftPart, tiles: UpliftTiles, fitted: Learner, rows: pd.DataFrame) -> Iterator[np.ndarray]:
    """What a model predicts of the rows' tiles, as a table of predictions has it, some tiles at a time."""
    for some in _at_once(job, rows):
        found = fitted.predict(tiles.read(some), some["tile_id"].tolist())
        yield counted(found, tiles.read(some, "mask"), len(tiles.classes)) if tiles.masks else found


def _at_once(job: UpliftPart, rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The rows, as many together as the learner is shown."""
    size = len(rows) if job.learner.predicts_once else _PREDICTED
    yield from (rows.iloc[first : first + size] for first in range(0, len(rows), size))


def _taught(job: UpliftPart, tiles: UpliftTiles) -> _Taught:
    """The tiles of the trial's arm and their truth."""
    arm = job.trial.kind
    real, synthetic = choose(job.trial, tiles.train, tiles.synthetic, job.params.seed)
    rows = pd.concat([synthetic, real] if arm.in_turn else [real, synthetic], ignore_index=True)
    first, counts = len(synthetic) if arm.in_turn else 0, {"real": len(real), "synthetic": len(synthetic)}
    extra = (rows["store"] != 0).to_numpy()
    if not arm.retrieves:
        return _Taught(*_gathered(job, tiles, rows), first, counts, extra)
    more, told = _retrieved(job, tiles)
    counts["retrieved"], extra = len(more), np.concatenate([extra, np.ones(len(more), bool)])
    return _Taught(*_gathered(job, tiles, rows, more, told), first, counts, extra)


def _gathered(
    job: UpliftPart,
    tiles: UpliftTiles,
    rows: pd.DataFrame,
    more: pd.DataFrame | None = None,
    told: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Tiles (n, h, w, 3) and their truth, class numbers (n,) or class ids (n, h, w): of rows, then of more rows what they are told to show."""

    def written(name: str, batches: Iterable[np.ndarray]) -> np.ndarray:
        return mapped_rows(folder, f"{which}-{name}", len(every), batches)

    every = rows if more is None else pd.concat([rows, more], ignore_index=True)
    folder, which = job.work / job.part / "tiles", name_of_rows(every, ("store", "part", "index"))
    images, told = written("image", tiles.batches(every)), np.empty(0, np.int64) if told is None else told
    if not tiles.masks:
        return images, np.concatenate([tiles.class_numbers(rows), told])
    of_more = (told[i : i + AT_ONCE] for i in range(0, len(told), AT_ONCE))
    return images, written("mask", chain(tiles.batches(rows, "mask"), of_more))


def _retrieved(job: UpliftPart, tiles: UpliftTiles) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows of unlabelled tiles with what they are taken to show: as many as the arm with synthetic tiles has of these."""
    twin = Trial("real+synthetic", job.trial.ratio, job.trial.seed)
    _, synthetic = choose(twin, tiles.train, tiles.synthetic, job.params.seed)
    count = len(synthetic) or round(job.trial.ratio * len(tiles.train))
    labelled, pool = spread_by(tiles.train, tiles.train["label"], _MOST_COMPARED), spread(tiles.pool, _MOST_COMPARED)
    own, others = _features(job, tiles, labelled, pool)
    if not tiles.masks:
        numbers = range(len(tiles.classes))
        shown = tiles.class_numbers(synthetic) if len(synthetic) else np.arange(count) % len(tiles.classes)
        wanted = {number: int((shown == number).sum()) for number in numbers}
        places, told = retrieved(own, tiles.class_numbers(labelled), others, wanted)
        return pool.iloc[places], told
    chosen = pool.iloc[most_alike(own, others, count)]
    if chosen.empty:
        return chosen, np.empty(0, np.uint8)
    fitted = _fitted(job, tiles, _Taught(*_gathered(job, tiles, tiles.train), 0, {}), "teacher")
    masks = (_sure(fitted, tiles.read(some)) for some in _at_once(job, chosen))
    return chosen, mapped_rows(job.work / job.part, "told", len(chosen), masks)


def _sure(teacher: Learner, images: np.ndarray) -> np.ndarray:
    """Masks of what a teacher finds, unknown where it isn't sure."""
    if not teacher.tells_certainty:
        return teacher.predict(images)
    masks, sure = teacher.sure_masks(images)
    return np.where(sure >= _SURE, masks, np.uint8(UNKNOWN))


def _features(
    job: UpliftPart, tiles: UpliftTiles, labelled: pd.DataFrame, pool: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Of labelled tiles and of the pool's, (n, d) and (m, d): the same for every seed and rate, so that they are computed once."""
    part = f"features@{job.key}"

    def write(folder: Path) -> None:
        extractor = load_extractor(_RETRIEVED_BY, job.device)
        for name, rows in (("labelled", labelled), ("pool", pool)):
            found = [extractor.features(images) for images in tiles.batches(rows)]
            np.save(folder / f"{name}.npy", np.concatenate(found))

    commit_part(job.parts, part, write)
    own, others = (np.load(job.parts / part / f"{name}.npy") for name in ("labelled", "pool"))
    return own, others


def _fitted(job: UpliftPart, tiles: UpliftTiles, taught: _Taught, folder: str = "model") -> Learner:
    config, learner = job.params.uplift, job.learner
    rate = job.trial.rate or learner.rate(config.learner_config)
    run = TrainingRun(
        "uplift", config.steps, rate, _seed(job), job.work / job.part / folder, config.steps,
        warmup_steps=config.steps // 10, device=job.device,
    )  # fmt: skip
    return learner.fit(taught.images, taught.truth, _training(job, tiles, run, taught))


def _training(job: UpliftPart, tiles: UpliftTiles, run: TrainingRun, taught: _Taught | None = None) -> Training:
    """What every model of the experiment is asked to do, whatever it learns."""
    config, arm = job.params.uplift, job.trial.kind
    told: dict[str, Any] = {"told": config.learner_config, "command": config.command, "models": job.study.models}
    if taught is not None:
        told |= {"first": taught.first, "extra": taught.extra, "extra_share": job.trial.ratio / (1 + job.trial.ratio)}
    side = tiles.test_px if tiles.masks else config.image_px
    return Training(
        config.learner_name, config.task, tiles.classes, run, config.batch_size, side, augmentation=arm.augmentation,
        start=job.start if arm.pretrained else None, **told,
    )  # fmt: skip


def _seed(job: UpliftPart) -> int:
    """The same for every arm: models of one seed begin from the same weights."""
    return int(digest([job.params.seed, job.trial.seed])[:7], 16)
