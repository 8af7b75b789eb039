"""Ruiz et al. 2023, DreamBooth: a model that learns tens of tiles. Does it still make what it made before, with its own tiles trained on and without?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.drawn import write_drawn
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.quality.kid import kid, kid_difference
from histoloom.quality.metrics import precision_recall
from histoloom.systems import Measured

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, as a data set that the packaged model has not seen: a few dozen tiles."""
    if data is not None:
        raise HistoloomError("dreambooth takes drawn data so far: leave --data out.")
    write_drawn(folder, side=256)
    table = folder / "manifests/slides.csv"
    slides = pd.read_csv(table)
    slides[slides["site"] == "north"].drop(columns=["site", "instances"]).assign(dataset="drawn").to_csv(
        table, index=False
    )


def measure(studies: list[Study]) -> Measured:
    """How far what the model makes without the few's cohort has moved from what it made before; and how like the few tiles the others are."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    tower = load_extractor("efficientnet-lite0", "cpu")
    rows = store.rows()
    few = tower.features(store.read(rows[rows["split"] == "train"]))
    made = {name: tower.features(synthetic.read(of)) for name, of in synthetic.rows().groupby("request")}
    kept, free, base = (made[f"prior-{name}"] for name in ("kept", "free", "base"))
    low, high = kid_difference(kept, free, base, 0)
    return {
        "value": kid(kept, base, 50, 0)["mean"],
        "baseline": kid(free, base, 50, 0)["mean"],
        "difference_interval": (low, high),
        "unit": "KID to what it made before, less is better; baseline without prior preservation",
        "n": len(kept),
        "more": {
            "few_tiles": float(len(few)),
            "kid_of_few_to_base": kid(few, base, 50, 0)["mean"],
            **{f"kid_to_few_{name}": kid(made[f"few-{name}"], few, 50, 0)["mean"] for name in ("kept", "free")},
            **{f"told_apart_{name}": told_apart(made[f"few-{name}"], few) for name in ("kept", "free")},
            **{f"recall_{name}": precision_recall(few, made[f"few-{name}"], 3)["recall"] for name in ("kept", "free")},
        },
    }


def told_apart(made: np.ndarray, real: np.ndarray) -> float:
    """Accuracy of the nearest neighbour, left out one by one, between as many made and real tiles: a half where they are alike."""
    n = min(len(made), len(real))
    both, is_real = np.concatenate([made[:n], real[:n]]), np.arange(2 * n) >= n
    apart = cdist(both, both)
    np.fill_diagonal(apart, np.inf)
    return float((is_real[apart.argmin(1)] == is_real).mean())
