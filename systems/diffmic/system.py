"""Yang et al. 2023, DiffMIC: labels by diffusion, beside the plain classifier at as many labels and steps."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, roc_auc_score

from histoloom.cluster import one_thread
from histoloom.config.learners import DEFAULT_LEARNERS, LearnerConfig, PlainLearner
from histoloom.data.drawn import write_drawn
from histoloom.data.mitoses import write_mitoses
from histoloom.data.rows import spread
from histoloom.data.study_folder import Study
from histoloom.learners.learner import Training, learner_of
from histoloom.systems import Measured
from histoloom.training.run import TrainingRun
from histoloom.uplift.analysis import paired_difference
from histoloom.uplift.tasks import LabelTask, label_task

STAGES = ("tile",)
SEEDS = 3
PATIENTS, SIDE, TRAIN_TILES = 42, 96, {"drawn": 144, "real": 600}
_CONTRAST = 0.3
"""Of drawn nuclei: at the usual one every tile is told rightly."""
_TILE_PX = 64
PICTURED, _ENLARGED = 10, 2
PLAIN = PlainLearner(name=DEFAULT_LEARNERS["label"])


class Tiles(NamedTuple):
    images: np.ndarray
    rows: pd.DataFrame


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients with pale nuclei, many or few; or mitotic figures, atypical or normal, whose slides are split."""
    if data is None:
        write_drawn(folder, PATIENTS, SIDE, contrast=_CONTRAST)
    else:
        write_mitoses(folder, data / "mitoses", _TILE_PX)


def measure(studies: list[Study]) -> Measured:
    """Balanced accuracy on held-out tiles, beside the plain classifier's; their calibration; and whether the spread of samples tells errors."""
    (study,) = studies
    train, test = _tiles(study)
    task = label_task(test.rows, tuple(study.params.tile.labels.classes))
    ours = [_fitted(study, train, study.params.uplift.learner_config, seed).told(test.images) for seed in range(SEEDS)]
    said = {
        "": [probabilities for probabilities, _, _ in ours],
        "_prior": [prior for _, _, prior in ours],
        "_plain": [_fitted(study, train, PLAIN, seed).predict(test.images) for seed in range(SEEDS)],
    }
    evidence = {name: np.stack([task.evidence(of_seed) for of_seed in of]) for name, of in said.items()}
    more = {f"{key}{name}": value for name, of in said.items() for key, value in _more(task, of).items()}
    spread_of = [_errors_told(task, probabilities, deviation.mean(1)) for probabilities, deviation, _ in ours]
    low, high = _interval(task, evidence, "_plain")
    below, above = _interval(task, evidence, "_prior")
    balanced = {
        name: float(np.mean([task.measures(of_seed)["balanced_accuracy"] for of_seed in of]))
        for name, of in said.items()
    }
    return {
        "value": balanced[""],
        "baseline": balanced["_plain"],
        "difference_interval": (low, high),
        "unit": "balanced accuracy; baseline the plain classifier",
        "n": len(test.rows),
        "more": more
        | {
            "balanced_accuracy_prior": balanced["_prior"],
            "difference_from_prior_low": below,
            "difference_from_prior_high": above,
            "errors_told_by_spread": float(np.mean(spread_of)),
            "groups": float(test.rows["split_group"].nunique()),
            "train_tiles": float(len(train.rows)),
        },
    }


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out tiles of each class, and the patches that are looked at; tiles of which samples agree most, and least."""
    train, test = _tiles(study)
    fitted = _fitted(study, train, study.params.uplift.learner_config, 0)
    probabilities, deviation, _ = fitted.told(test.images)
    order = np.argsort(deviation.mean(1), kind="stable")
    right = label_task(test.rows, tuple(study.params.tile.labels.classes)).evidence(probabilities)
    out = {}
    for name, own in test.rows.groupby("label"):
        few = spread(own, PICTURED).index.to_numpy()
        out |= {f"{name}, held out": _enlarged(test.images[few]),
                f"{name}: patches that are looked at": _outlined(test.images[few], fitted.boxes(test.images[few]))}  # fmt: skip
    kinds = {"right, samples agree most": order[right[order]], "wrong, samples agree most": order[~right[order]],
             "samples agree least": order[::-1]}  # fmt: skip
    return out | {name: _enlarged(test.images[of[:PICTURED]]) for name, of in kinds.items() if len(of)}


def _enlarged(tiles: np.ndarray) -> np.ndarray:
    return tiles.repeat(_ENLARGED, 1).repeat(_ENLARGED, 2)


def _outlined(tiles: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Each tile with the edges of its boxes (n, boxes, 3) in yellow."""
    out = _enlarged(tiles)
    for tile, own in zip(out, boxes):
        for top, left, side in np.round(own * len(tile)).astype(int):
            inner = np.zeros(tile.shape[:2], bool)
            inner[top + 1 : top + side - 1, left + 1 : left + side - 1] = True
            part = np.s_[top : top + side, left : left + side]
            tile[part][~inner[part]] = (255, 230, 0)
    return out


def _tiles(study: Study) -> tuple[Tiles, Tiles]:
    """Labelled train tiles, as many of each class as there are, and all held-out ones."""
    store = study.real()
    rows, classes = store.rows(), study.params.tile.labels.classes
    count = TRAIN_TILES["real" if study.params.tile.manifest is None else "drawn"]
    of_train = rows[rows["split"] == "train"]
    train = pd.concat([spread(of_train[of_train["label"] == name], count // len(classes)) for name in classes])
    test = rows[rows["split"] == "test"].reset_index(drop=True)
    return Tiles(store.read(train), train), Tiles(store.read(test), test)


def _fitted(study: Study, train: Tiles, learner: LearnerConfig, seed: int) -> Any:
    """A learner of these tiles, at its own rate, with the steps that params state."""
    kind, told, classes = (
        learner_of(learner.name, "label"),
        study.params.uplift,
        tuple(study.params.tile.labels.classes),
    )
    labels = np.array([classes.index(label) for label in train.rows["label"]])
    with tempfile.TemporaryDirectory() as work, one_thread():
        run = TrainingRun(
            learner.name, told.steps, kind.rate(learner), seed, Path(work), told.steps, warmup_steps=told.steps // 10
        )
        training = Training(learner.name, "label", classes, run, told.batch_size, told.image_px, told=learner)
        return kind.fit(train.images, labels, training)


def _more(task: LabelTask, said: list[np.ndarray]) -> dict[str, float]:
    """Macro F1, calibration error, Brier score, AUROC, and AUROC of errors by the lack of confidence; means over seeds."""
    wanted = np.eye(len(task.classes))[task.truth]
    each = [
        {
            "macro_f1": f1_score(task.truth, of_seed.argmax(1), average="macro"),
            "calibration_error": task.measures(of_seed)["calibration_error"],
            "brier": ((of_seed - wanted) ** 2).sum(1).mean(),
            "auroc": task.measures(of_seed)["auroc"] or 0.5,
            "errors_told_by_confidence": _errors_told(task, of_seed, 1 - of_seed.max(1)),
        }
        for of_seed in said
    ]
    return {name: float(np.mean([of_seed[name] for of_seed in each])) for name in each[0]}


def _errors_told(task: LabelTask, probabilities: np.ndarray, doubt: np.ndarray) -> float:
    """AUROC by which doubt (n,) tells tiles that are wrong; a half where none or all are."""
    wrong = ~task.evidence(probabilities)
    return float(roc_auc_score(wrong, doubt)) if 0 < wrong.sum() < len(wrong) else 0.5


def _interval(task: LabelTask, evidence: dict[str, np.ndarray], other: str) -> tuple[float, float]:
    low, high = paired_difference(task, evidence[other], evidence[""], np.random.default_rng(0))["interval"]
    return low, high
