"""What is compared, laid down before any test tile is predicted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from histoloom.config import Uplift
from histoloom.config.arms import Arm
from histoloom.data.commit import digest
from histoloom.learners.learner import learner_of
from histoloom.uplift.tasks import Task


@dataclass(frozen=True)
class Trial:
    """One model: trained on an arm's tiles, in one drawing of them and of its weights.

    rate : the learning rate; None for the learner's own.
    """

    arm: str
    ratio: float
    seed: int
    rate: float | None = None

    @property
    def name(self) -> str:
        tried = "" if self.rate is None else f"_rate-{self.rate:g}"
        return f"{self.arm}_ratio-{self.ratio:g}{tried}_seed-{self.seed}"

    @cached_property
    def kind(self) -> Arm:
        return Arm.of(self.arm)


def trials_of(config: Uplift) -> list[Trial]:
    """All trials; an arm without a mixture has no ratio."""
    return [
        Trial(arm, ratio, seed, rate)
        for arm in config.arms
        for ratio in (config.ratios if Arm.of(arm).mixed else (1.0,))
        for rate in config.rates
        for seed in range(config.seeds)
    ]


class Protocol(TypedDict):
    """What will be done, as a record.

    test_tiles_sha256 : of the test tiles' ids. labels : how much of the training set's labels everything saw.
    asked : the arm that the question is about, and what it is compared with.
    """

    params: dict[str, Any]
    trials: list[dict[str, Any]]
    classes: list[str]
    test_tiles: int
    test_groups: int
    test_tiles_sha256: str
    val_tiles: int
    primary_measure: str
    labels: dict[str, Any]
    compared_with: str
    asked: dict[str, Any]
    difference: str


def protocol_of(
    config: Uplift, trials: list[Trial], val: pd.DataFrame, test: pd.DataFrame, task: Task, labels: dict[str, Any]
) -> Protocol:
    """What will be done with these test tiles."""
    told = config.learner_config.model_dump(mode="json")
    rate = config.learning_rate or learner_of(config.learner_name, config.task).rate(config.learner_config)
    rivals = sorted({trial.arm for trial in trials if trial.kind.is_rival})
    return {
        "params": config.model_dump(mode="json")
        | {"learner": told if len(told) > 1 else config.learner_name, "learning_rate": rate},
        "trials": [asdict(trial) for trial in trials],
        "classes": list(task.classes),
        "test_tiles": len(test),
        "test_groups": int(test["split_group"].nunique()),
        "test_tiles_sha256": digest(sorted(test["tile_id"])),
        "val_tiles": len(val),
        "primary_measure": task.measure,
        "labels": labels,
        "compared_with": config.arms[0],
        "asked": {"arm": config.asked_arm, "best_of": rivals, "chosen_on": "val" if len(val) else "test"},
        "difference": "paired by seed, on the same test tiles",
    }


def choose(trial: Trial, real: pd.DataFrame, synthetic: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The real and the synthetic rows that a trial's model is trained on.

    Of synthetic tiles there are `ratio` times as many as real ones, drawn without replacement, or as many as were accepted
    where these are fewer; an arm without a filter has as many, drawn of all.
    """
    arm = trial.kind
    own = real if arm.has_real else real.head(0)
    if not arm.has_synthetic:
        return own, synthetic.head(0)
    pool = synthetic[synthetic["request"].isin(arm.requests)] if arm.requests else synthetic
    accepted = pool[pool["accepted"]]
    wanted = min(round(trial.ratio * len(real)) if arm.has_real else len(accepted), len(accepted))
    pool = pool if arm.unfiltered else accepted
    draw = np.random.default_rng([seed, trial.seed]).permutation(len(pool))[:wanted]
    return own, pool.iloc[np.sort(draw)]
