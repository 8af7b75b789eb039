"""Shao et al.: frozen features of a denoiser of latents under light decoders, which teach each other. Beside a U-Net, and one that nobody teaches."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histoloom.config.learners import DenoiserLearner, LearnerConfig, OwnLearner
from histoloom.data.nuclei_sets import write_sites
from histoloom.data.study_folder import Study
from histoloom.systems import Measured, learner_pictures
from histoloom.uplift.hospitals import BASELINE, OWN, comparison_of, measured
from histoloom.uplift.learner_comparison import LearnerComparison

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
SEEDS = 2
TRAIN_TILES, TEST_TILES, LABEL_PATIENTS = 32, 96, 2
_CONTRAST = 0.3
"""Of drawn nuclei: fainter ones are lost in latents."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    write_sites(folder, data, _CONTRAST)


def measure(studies: list[Study]) -> Measured:
    """Dice by patient where the masks of two train patients are known. The denoiser saw all train tiles without their masks."""
    (study,) = studies
    learner = study.params.uplift.learner_config
    return {**measured(_comparison(study), learner, _others(learner))}


def shown(study: Study) -> dict[str, np.ndarray]:
    """Masks that were found in held-out tiles."""
    learner = study.params.uplift.learner_config
    learners = {"two heads": learner, "one head": _others(learner)["one_head"], "by a U-Net": BASELINE}
    return learner_pictures(_comparison(study), learners, OWN)


def _comparison(study: Study) -> LearnerComparison:
    return comparison_of(study, TRAIN_TILES, TEST_TILES, SEEDS, label_patients=LABEL_PATIENTS, models=study.models)


def _others(learner: LearnerConfig) -> dict[str, LearnerConfig]:
    """One head that learns the labelled tiles alone, and the base model's features in place of the study's."""
    assert isinstance(learner, OwnLearner)
    told = {name: value for name, value in learner.told.items() if name != "confidence"}
    return {
        "one_head": DenoiserLearner(**told),
        "base_model": OwnLearner(name=learner.name, **learner.told, init="histoloom-base"),
    }
