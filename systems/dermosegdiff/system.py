"""Bozorgpour et al. 2023, DermoSegDiff: masks by diffusion, whose borders count more. Beside a U-Net, and beside the same without that weight."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histoloom.config import LossWeight
from histoloom.data.drawn import FAINT
from histoloom.data.nuclei_sets import write_sites
from histoloom.data.study_folder import Study
from histoloom.systems import Measured, learner_pictures
from histoloom.uplift.hospitals import BASELINE, OWN, comparison_of, learner_of_study, measured

STAGES = ("tile",)
SEEDS = 2
TRAIN_TILES, TEST_TILES = 64, 48
PLAIN = {"loss_weight": LossWeight(kind="none")}
"""What is changed in the learner to leave out what the system is about."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    write_sites(folder, data, FAINT)


def measure(studies: list[Study]) -> Measured:
    """Dice by patient beside a U-Net's at equal labels and steps, on held-out patients of each site and of the site that was not learnt."""
    (study,) = studies
    learner = learner_of_study(study)
    others = {"without_the_weight": learner.model_copy(update=PLAIN)}
    return {**measured(comparison_of(study, TRAIN_TILES, TEST_TILES, SEEDS), learner, others)}


def shown(study: Study) -> dict[str, np.ndarray]:
    """Masks that were found in held-out tiles."""
    learner = learner_of_study(study)
    plain = learner.model_copy(update=PLAIN)
    learners = {"masks by diffusion": learner, "the same without the weight": plain, "by a U-Net": BASELINE}
    return learner_pictures(comparison_of(study, TRAIN_TILES, TEST_TILES, SEEDS), learners, OWN)
