"""Purma et al. 2023, GenSelfDiff-HIS: a denoiser of tiles without labels as the start of a segmenter. Beside a U-Net, and the same from new weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histoloom.config.learners import DenoiserLearner, LearnerConfig
from histoloom.data.drawn import FAINT
from histoloom.data.nuclei_sets import write_sites
from histoloom.data.study_folder import Study
from histoloom.systems import Measured, learner_pictures
from histoloom.uplift.hospitals import BASELINE, OWN, comparison_of, measured
from histoloom.uplift.learner_comparison import LearnerComparison

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
SEEDS = 2
TRAIN_TILES, TEST_TILES, LABEL_PATIENTS = 32, 96, 2


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    write_sites(folder, data, FAINT)


def measure(studies: list[Study]) -> Measured:
    """Dice by patient where the masks of two train patients are known. The denoiser saw all train tiles without their masks."""
    (study,) = studies
    learner = study.params.uplift.learner_config
    return {**measured(_comparison(study), learner, _others(learner))}


def shown(study: Study) -> dict[str, np.ndarray]:
    """Masks that were found in held-out tiles."""
    learner = study.params.uplift.learner_config
    learners = {"tuned": learner, "the same from new weights": _others(learner)["new_weights"], "by a U-Net": BASELINE}
    return learner_pictures(_comparison(study), learners, OWN)


def _comparison(study: Study) -> LearnerComparison:
    return comparison_of(study, TRAIN_TILES, TEST_TILES, SEEDS, label_patients=LABEL_PATIENTS, models=study.models)


def _others(learner: LearnerConfig) -> dict[str, LearnerConfig]:
    """The same network from new weights, and the base model tuned in its place."""
    assert isinstance(learner, DenoiserLearner)
    return {
        "new_weights": learner.model_copy(update={"weights": "drawn"}),
        "base_model": learner.model_copy(update={"init": "histoloom-base"}),
    }
