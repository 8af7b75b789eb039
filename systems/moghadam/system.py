"""Moghadam et al. 2023: tiles of a genotype. A reader of real tiles says whether the genotype that was asked for shows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.drawn import MARKER, write_drawn
from histoloom.data.genotype import WILD_TYPE, parse_genotype
from histoloom.data.nuclei_sets import monuseg_slides, write_slides
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.data.tables import with_conditions
from histoloom.learners.linear import fit_classifier
from histoloom.quality.kid import kid
from histoloom.systems import Measured, paired_interval

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")

_COLUMNS = ["slide_id", "path", "patient_id", "mpp", "split"]


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, of whom half have the marker altered; or monuseg's thirty, whose TP53 is looked at."""
    if data is None:
        write_drawn(folder)
    else:
        write_slides(folder, monuseg_slides(folder, data)[_COLUMNS].assign(label="dense"))
        pd.read_csv(data / "genotype.csv")[["patient_id", "TP53"]].to_csv(
            folder / "manifests/genotype.csv", index=False
        )


def measure(studies: list[Study]) -> Measured:
    """The share of tiles whose marker reads as it was asked for, beside that under shuffled genotypes; and KID with and without P2."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    rows = with_conditions(store.rows(), study.params)
    train = rows[rows["split"] == "train"]
    marker = MARKER if any(MARKER in parse_genotype(text) for text in train["genotype"]) else "TP53"
    tower = load_extractor("efficientnet-lite0", "cpu")
    reader = fit_classifier(tower.features(store.read(train)), _states(train["genotype"], marker), ("wt", "altered"))
    made = synthetic.rows()
    features = tower.features(synthetic.read(made))
    own = (made["request"] == "with-p2").to_numpy()
    asked = np.array(_states(made["genotype"], marker))
    read = np.array(reader.classes)[reader.probabilities(features).argmax(1)]
    shuffled = np.random.default_rng(0).permutation(asked[own])
    right, by_chance = read[own] == asked[own], read[own] == shuffled
    held_out = tower.features(store.read(rows[rows["split"] == "test"]))
    of_real = np.array(reader.classes)[reader.probabilities(held_out).argmax(1)]
    truth = np.array(_states(rows[rows["split"] == "test"]["genotype"], marker))
    return {
        "value": float(right.mean()),
        "baseline": float(by_chance.mean()),
        "difference_interval": paired_interval(right.astype(float) - by_chance, made["split_group"][own]),
        "unit": f"share of tiles whose {marker} reads as asked",
        "n": int(own.sum()),
        "more": {
            "real_held_out": float((of_real == truth).mean()),
            "kid_with_p2": kid(features[own], held_out, 20, 0)["mean"],
            "kid_without": kid(features[~own], held_out, 20, 0)["mean"],
        },
    }


def _states(genotypes, marker: str) -> list[str]:
    return ["wt" if parse_genotype(text).get(marker, WILD_TYPE) == WILD_TYPE else "altered" for text in genotypes]
