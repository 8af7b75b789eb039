"""What is compared, laid down before any test tile is predicted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from histoloom.config import Uplift
from histoloom.data.commit import digest
from histoloom.learners.learner import learner_of
from histoloom.uplift.tasks import Task


@dataclass(frozen=True)
class Trial:
    """One model: trained on an arm's tiles, in one drawing of them and of its weights."""

    arm: str
    ratio: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.arm}_ratio-{self.ratio:g}_seed-{self.seed}"

    @property
    def has_real(self) -> bool:
        return self.arm != "synthetic"

    @property
    def has_synthetic(self) -> bool:
        return "synthetic" in self.arm or self.unfiltered

    @property
    def unfiltered(self) -> bool:
        return "unfiltered" in self.arm

    @property
    def in_turn(self) -> bool:
        """Whether synthetic tiles are learnt from first, and real ones then."""
        return "-then-" in self.arm

    @property
    def classical(self) -> bool:
        return self.arm.endswith("+classical")


def trials_of(config: Uplift) -> list[Trial]:
    """All trials; an arm without a mixture has no ratio, and is tried once a seed."""
    out = []
    for arm in config.arms:
        mixed = arm.startswith(("real+synthetic", "real+unfiltered", "synthetic-then-real"))
        for ratio in config.ratios if mixed else (1.0,):
            out += [Trial(arm, ratio, seed) for seed in range(config.seeds)]
    return out


class Protocol(TypedDict):
    """What will be done, as a record.

    test_tiles_sha256 : of the test tiles' ids. labels : how much of the training set's labels everything saw.
    """

    params: dict[str, Any]
    trials: list[dict[str, Any]]
    classes: list[str]
    test_tiles: int
    test_groups: int
    test_tiles_sha256: str
    primary_measure: str
    labels: dict[str, Any]
    compared_with: str
    difference: str


def protocol_of(
    config: Uplift, trials: list[Trial], test: pd.DataFrame, task: Task, labels: dict[str, Any]
) -> Protocol:
    """What will be done with these test tiles."""
    told = config.learner_config.model_dump(mode="json")
    rate = config.learning_rate or learner_of(config.learner_name, config.task).rate(config.learner_config)
    return {
        "params": config.model_dump(mode="json")
        | {"learner": told if len(told) > 1 else config.learner_name, "learning_rate": rate},
        "trials": [asdict(trial) for trial in trials],
        "classes": list(task.classes),
        "test_tiles": len(test),
        "test_groups": int(test["split_group"].nunique()),
        "test_tiles_sha256": digest(sorted(test["tile_id"])),
        "primary_measure": task.measure,
        "labels": labels,
        "compared_with": config.arms[0],
        "difference": "paired by seed, on the same test tiles",
    }


def choose(trial: Trial, real: pd.DataFrame, synthetic: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The real and the synthetic rows that a trial's model is trained on.

    Of synthetic tiles there are `ratio` times as many as real ones, drawn without replacement, or as many as were accepted
    where these are fewer; an arm without a filter has as many, drawn of all.
    """
    own = real if trial.has_real else real.head(0)
    if not trial.has_synthetic:
        return own, synthetic.head(0)
    accepted = synthetic[synthetic["accepted"]]
    wanted = min(round(trial.ratio * len(real)) if trial.has_real else len(accepted), len(accepted))
    pool = synthetic if trial.unfiltered else accepted
    draw = np.random.default_rng([seed, trial.seed]).permutation(len(pool))[:wanted]
    return own, pool.iloc[np.sort(draw)]
