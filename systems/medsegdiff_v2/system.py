"""Wu et al. 2023, MedSegDiff-V2: masks by diffusion, steered by an anchor and a transformer in Fourier space. Beside a U-Net, and beside the default network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histoloom.config.learners import DiffusionLearner
from histoloom.data.drawn import FAINT, write_drawn
from histoloom.data.nuclei_sets import write_both
from histoloom.data.study_folder import Study
from histoloom.systems import Measured, learner_pictures
from histoloom.uplift.hospitals import BASELINE, OWN, comparison_of, learner_of_study, measured
from histoloom.uplift.learner_comparison import LearnerComparison

STAGES = ("tile",)
SEEDS = 2
TRAIN_TILES, TEST_TILES = 64, 48


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, whose nuclei are faint and known; or those of monuseg and of tnbc, a site each."""
    if data is None:
        write_drawn(folder, contrast=FAINT)
    else:
        write_both(folder, data)


def measure(studies: list[Study]) -> Measured:
    """Dice by patient beside a U-Net's at equal labels and steps, on held-out patients of each site and of the site that was not learnt."""
    (study,) = studies
    comparison, learner = _comparison(study), learner_of_study(study)
    plain = _plain(learner)
    found = measured(comparison, learner)
    f1, distance = comparison.borders(plain, OWN)
    found["more"] |= {
        "dice_of_the_default_network": comparison.dice(plain, OWN),
        "border_f1_of_the_default_network": f1,
        "hausdorff95_px_of_the_default_network": distance,
    }
    return {**found, "unit": "Dice by patient; baseline a U-Net at equal labels and steps"}


def shown(study: Study) -> dict[str, np.ndarray]:
    """Masks that were found in held-out tiles."""
    learner = learner_of_study(study)
    learners = {"masks by diffusion": learner, "the default network": _plain(learner), "by a U-Net": BASELINE}
    return learner_pictures(_comparison(study), learners, OWN)


def _comparison(study: Study) -> LearnerComparison:
    return comparison_of(study, TRAIN_TILES, TEST_TILES, SEEDS)


def _plain(learner: DiffusionLearner) -> DiffusionLearner:
    """The same in all but what the system is about."""
    return learner.model_copy(update={"backbone": "unet"})
