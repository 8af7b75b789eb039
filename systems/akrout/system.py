"""Akrout et al. 2023: synthetic tiles curated by filters, and classifiers of real tiles, of both kinds, and of synthetic ones alone."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.cluster import one_thread
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.drawn import write_drawn
from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.learners.learner import Training, learner_of
from histoloom.quality.kid import kid
from histoloom.systems import Measured, paired_interval
from histoloom.training.run import TrainingRun

STAGES = (
    "tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample", "sample_slides", "tile_slides",
    "train_filters", "filter",
)  # fmt: skip
SEEDS, STEPS, REAL_OF_CLASS = 2, 60, 12
"""Of the classifiers, all with as many steps; and how many real tiles of a class they have."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients of four classes: how many nuclei there are, and how large."""
    if data is not None:
        raise HistoloomError("akrout takes drawn data so far: leave --data out.")
    write_drawn(folder)
    table = folder / "manifests/slides.csv"
    slides = pd.read_csv(table)
    altered = (
        slides["patient_id"].map(pd.read_csv(folder / "manifests/genotype.csv").set_index("patient_id")["IDH1"])
        == "MUT"
    )
    slides.assign(label=np.where(altered, "large-" + slides["label"], slides["label"])).to_csv(table, index=False)


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out tiles, and made ones that were accepted and rejected."""
    store, synthetic = study.real(), TileStore(study.synthetic)
    rows, made = store.rows(), study.synthetic_stores()[0].rows()
    out = {"real, held out": store.read(spread(rows[rows["split"] == "test"], 10))}
    for name, of in (("accepted", made[made["accepted"]]), ("rejected", made[~made["accepted"]])):
        if len(of):
            out[f"{name}, {len(of)} of {len(made)}"] = synthetic.read(spread(of, 10))
    return out


def measure(studies: list[Study]) -> Measured:
    """Accuracy on held-out tiles of a classifier of few real tiles and curated ones, and of the same with tiles as they came."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    rows, made = store.rows(), study.synthetic_stores()[0].rows()
    curated = made[made["accepted"]]
    train, test = (rows[rows["split"] == split] for split in ("train", "test"))
    few = pd.concat([spread(of, REAL_OF_CLASS) for _, of in train.groupby("label")])
    chosen = made.sample(len(curated), random_state=0) if len(curated) else made
    seen = {
        "real": [(store, few)],
        "hybrid_curated": [(store, few), (synthetic, curated)],
        "hybrid": [(store, few), (synthetic, chosen)],
        "synthetic_curated": [(synthetic, curated)],
        "synthetic": [(synthetic, chosen)],
    }
    classes = study.params.tile.labels.classes
    truth = np.array([classes.index(label) for label in test["label"]])
    images = store.read(test)
    right = {name: _right(parts, classes, images, truth, study) for name, parts in seen.items()}
    tower = load_extractor("efficientnet-lite0", "cpu")
    real = tower.features(images)
    return {
        "value": float(right["hybrid_curated"].mean()),
        "baseline": float(right["hybrid"].mean()),
        "difference_interval": paired_interval(right["hybrid_curated"] - right["hybrid"], test["split_group"]),
        "unit": "accuracy of real and curated tiles; baseline tiles as they came",
        "n": len(test),
        "more": {
            **{f"accuracy_{name}": float(values.mean()) for name, values in right.items()},
            "accepted_of_made": len(curated) / len(made),
            "kid_curated": kid(tower.features(synthetic.read(curated)), real, 50, 0)["mean"]
            if len(curated) > 3
            else 0.0,
            "kid_as_they_came": kid(tower.features(synthetic.read(made)), real, 50, 0)["mean"],
        },
    }


def _right(
    parts: list[tuple[TileStore, pd.DataFrame]], classes: tuple[str, ...], images: np.ndarray, truth: np.ndarray, study: Study
) -> np.ndarray:  # fmt: skip
    """The share of seeds whose classifier is right, (n,)."""
    parts = [(store, rows) for store, rows in parts if len(rows)]
    if not parts:
        return np.zeros(len(truth))
    own = np.concatenate([store.read(rows) for store, rows in parts])
    labels = np.concatenate([[classes.index(label) for label in rows["label"]] for _, rows in parts])
    found = []
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as work, one_thread():
            run = TrainingRun("classifier", STEPS, 3e-4, seed, Path(work), STEPS, warmup_steps=STEPS // 10)
            training = Training("efficientnet-lite0", "label", classes, run, 16, 48)
            fitted = learner_of("efficientnet-lite0", "label").fit(own, labels, training)
            found.append(fitted.predict(images).argmax(1) == truth)
    return np.mean(found, 0)
