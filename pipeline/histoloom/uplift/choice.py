"""What val decides before a test tile is looked at: each arm's learning rate, the arm that synthetic tiles must beat, and what can be seen at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from histoloom.config.arms import Arm
from histoloom.uplift.analysis import FEW_GROUPS, ArmKey, paired_difference
from histoloom.uplift.tasks import Task

RateKey = tuple[str, float, float | None]
"""An arm, its ratio, and a learning rate."""
_POWER = (1.96 + 0.84) / 1.96
"""By how much a difference exceeds half of a 95 % interval if four experiments of five are to find it."""


class Choice(TypedDict):
    """What is decided.

    rates : the learning rate of each arm and ratio, in their order; None for the learner's own.
    best_other : the arm without synthetic tiles that those with them must beat; None where none has strong augmentation.
    chosen_on : the split that decided.
    val : arm to its measure on val; without val, nothing.
    detectable : the least difference on test that four experiments of five would find; None where val can't tell.
    """

    rates: list[tuple[str, float, float | None]]
    best_other: str | None
    chosen_on: str
    val: dict[str, float]
    detectable: float | None


def measure_of(task: Task, predictions: Sequence[np.ndarray]) -> float:
    """The primary measure, the mean over seeds."""
    everything = np.ones(len(task.groups))
    return float(np.mean([task.score(task.evidence(p), everything) for p in predictions]))


def best_rates(val: Mapping[RateKey, Sequence[np.ndarray]], task: Task) -> dict[ArmKey, float | None]:
    """Of each arm and ratio the learning rate whose models are best on val, the first of equal ones."""
    found: dict[ArmKey, tuple[float, float | None]] = {}
    for (arm, ratio, rate), predictions in val.items():
        score = measure_of(task, predictions)
        if (arm, ratio) not in found or score > found[arm, ratio][0]:
            found[arm, ratio] = score, rate
    return {key: rate for key, (_, rate) in found.items()}


def best_other(predictions: Mapping[ArmKey, Sequence[np.ndarray]], task: Task) -> ArmKey | None:
    """Of the arms without synthetic tiles and with strong augmentation the best one."""
    rivals = [key for key in predictions if Arm.of(key[0]).is_rival]
    return max(rivals, key=lambda key: measure_of(task, predictions[key]), default=None)


def detectable(
    val: Mapping[ArmKey, Sequence[np.ndarray]], task: Task, test_groups: np.ndarray, pair: tuple[ArmKey, ArmKey]
) -> float | None:
    """The difference on test that would be found four times of five, as far as two arms without synthetic tiles tell on val.

    The interval of their difference is brought to the test's number of patients, or of tiles where patients are too few to draw from.
    """
    first, second = (np.stack([task.evidence(p) for p in val[key]]) for key in pair)
    low, high = paired_difference(task, first, second, np.random.default_rng(0))["interval"]
    counts = [(len(set(groups)), len(groups)) for groups in (task.groups, test_groups)]
    which = 0 if all(groups >= FEW_GROUPS for groups, _ in counts) else 1
    found = _POWER * (high - low) / 2 * np.sqrt(counts[0][which] / counts[1][which])
    return float(found) if np.isfinite(found) and found > 0 else None
