"""What is compared, laid down before any test tile is predicted."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from histoloom.config import Uplift
from histoloom.data.commit import digest


@dataclass(frozen=True)
class Run:
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
    def classical(self) -> bool:
        return self.arm.endswith("+classical")


def runs_of(config: Uplift) -> list[Run]:
    """All runs; an arm without a mixture has no ratio, and is run once."""
    out = []
    for arm in config.arms:
        mixed = arm.startswith(("real+synthetic", "real+unfiltered"))
        for ratio in config.ratios if mixed else (1.0,):
            out += [Run(arm, ratio, seed) for seed in range(config.seeds)]
    return out


def protocol_of(
    config: Uplift, runs: list[Run], test: pd.DataFrame, classes: tuple[str, ...], measure: str, labels: dict
) -> dict:
    """What will be done, as a record: the runs, the test tiles by a hash of their ids, the measure, the comparison, and in
    `labels` how much of the training set's labels everything saw."""
    return {
        "params": config.model_dump(mode="json") | {"learning_rate": config.rate},
        "runs": [asdict(run) for run in runs],
        "classes": list(classes),
        "test_tiles": len(test),
        "test_groups": int(test["split_group"].nunique()),
        "test_tiles_sha256": digest(sorted(test["tile_id"])),
        "primary_measure": measure,
        "labels": labels,
        "compared_with": config.arms[0],
        "difference": "paired by seed, on the same test tiles",
    }


def choose(run: Run, real: pd.DataFrame, synthetic: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The real and the synthetic rows that a run is trained on.

    Of synthetic tiles there are `ratio` times as many as real ones, drawn without replacement, or as many as were accepted
    where these are fewer; an arm without a filter has as many, drawn of all.
    """
    own = real if run.has_real else real.head(0)
    if not run.has_synthetic:
        return own, synthetic.head(0)
    accepted = synthetic[synthetic["accepted"]]
    wanted = min(round(run.ratio * len(real)) if run.has_real else len(accepted), len(accepted))
    pool = synthetic if run.unfiltered else accepted
    draw = np.random.default_rng([seed, run.seed]).permutation(len(pool))[:wanted]
    return own, pool.iloc[np.sort(draw)]
