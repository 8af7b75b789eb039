"""Tiny studies for the experiment: tiles of two colours, real and synthetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histoloom.config import Params
from histoloom.data.schema import SYNTHETIC_ROW
from tests.build import make_part, synthetic_rows, tile_rows, write_synthetic_lineage, write_verdicts
from tests.stages import run, study_of

CLASSES = ("pink", "blue")


def pictures(labels: list[str], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    base = {"pink": (225, 150, 190), "blue": (150, 140, 215)}
    return np.stack([np.clip(rng.normal(base[label], 25, (24, 24, 3)), 0, 255) for label in labels]).astype(np.uint8)


def write_study(folder: Path, synthetic_labels: list[str], shown: list[str]) -> None:
    """Real tiles of three splits, and synthetic tiles with labels that may not be what they show."""
    for seed, split in enumerate(("train", "val", "test")):
        labels = list(CLASSES) * 12
        rows = tile_rows(24, split=split, split_group=split, label=labels)
        make_part(
            folder / "data/tiles",
            split,
            rows.assign(tile_id=[f"{split}-{n}" for n in range(24)]),
            pictures(labels, seed),
        )
    count = len(synthetic_labels)
    rows = synthetic_rows(count, split_group="train", label=synthetic_labels, masked=False)
    make_part(folder / "data/synthetic", "augment-00000", rows, pictures(shown, 9), SYNTHETIC_ROW)
    write_synthetic_lineage(folder / "data/synthetic")
    write_verdicts(folder / "data/verdicts/augment-00000", rows, [True] * count)


def params_of(**uplift) -> Params:
    base = {"image_px": 32, "steps": 12, "batch_size": 8, "seeds": 2, "learning_rate": 1e-3}
    labels = {"source": "slide", "classes": list(CLASSES)}
    return Params.model_validate({"tile": {"mpp": 1.0, "tile_px": 24, "labels": labels}, "uplift": base | uplift})


def run_uplift(params: Params) -> dict:
    return run("uplift", study_of(params))
