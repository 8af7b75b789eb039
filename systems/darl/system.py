"""Kim et al. 2023, DARL: nuclei told without anybody's masks, by one network that also paints them. Beside a watershed of the stain, and beside a U-Net."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histoloom.data.nuclei_sets import write_sites
from histoloom.data.study_folder import Study
from histoloom.report.pictures import mask_picture
from histoloom.slides.stain_mask import NUCLEUS, fit_stain_mask
from histoloom.systems import Measured, learner_pictures
from histoloom.uplift.hospitals import BASELINE, OTHER, OWN, comparison_of
from histoloom.uplift.learner_comparison import LearnerComparison, MaskedTiles, dice_difference, mean_dice
from histoloom.uplift.tasks import MaskTask, counted

STAGES = ("tile",)
SEEDS = 2
TRAIN_TILES, TEST_TILES, PICTURED = 256, 128, 10
_CONTRAST = 0.3
"""Of drawn nuclei: of fainter ones the stain tells few, and nothing shows what layouts look like."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    write_sites(folder, data, _CONTRAST)


def measure(studies: list[Study]) -> Measured:
    """Dice by patient on held-out patients of all sites, and for each site alone; the baseline is a watershed of each patient's own stain."""
    (study,) = studies
    comparison, learner, mpp = _comparison(study), study.params.uplift.learner_config, study.params.tile.mpp
    classes, tests = comparison.classes, [fold.tests[OWN] for fold in comparison.folds]
    stained = np.concatenate([by_stain(tiles, mpp) for tiles in tests])
    counts = {
        "": comparison.counts(learner, OWN),
        "by_stain": np.stack([counted(stained, comparison.truth(OWN), 1)] * SEEDS),
        "u_net": comparison.counts(BASELINE, OWN),
    }
    ends = np.cumsum([0, *(len(tiles.images) for tiles in tests)])
    more: dict[str, float] = {}
    for number, tiles in enumerate(tests):
        here, task = slice(ends[number], ends[number + 1]), MaskTask(classes, tiles.groups)
        site = f"site_{number + 1}"
        low, high = _difference(task, {name: of[:, here] for name, of in counts.items()})
        more |= {f"dice_{site}{'_' * bool(name)}{name}": mean_dice(task, of[:, here]) for name, of in counts.items()}
        more |= {f"difference_{site}_low": low, f"difference_{site}_high": high}
    task = comparison.task(OWN)
    more |= {"dice_u_net": mean_dice(task, counts["u_net"]), "dice_other_site": comparison.dice(learner, OTHER)}
    return {
        "value": mean_dice(task, counts[""]),
        "baseline": mean_dice(task, counts["by_stain"]),
        "difference_interval": _difference(task, counts),
        "unit": "Dice by patient; baseline a watershed of the stain; neither saw a mask",
        "n": len(stained),
        "more": more,
    }


def shown(study: Study) -> dict[str, np.ndarray]:
    """Masks that were found in held-out tiles, and what the stain tells of them."""
    learners = {"without any mask": study.params.uplift.learner_config, "by a U-Net that saw masks": BASELINE}
    comparison = _comparison(study)
    pictures = learner_pictures(comparison, learners, OWN, PICTURED)
    stained = np.concatenate([by_stain(fold.tests[OWN], study.params.tile.mpp) for fold in comparison.folds])
    few = np.unique(np.linspace(0, len(stained) - 1, PICTURED).astype(int))
    return pictures | {"by a watershed of the stain": mask_picture(stained[few])}


def by_stain(tiles: MaskedTiles, mpp: float) -> np.ndarray:
    """What a watershed finds, (n, h, w) uint8, its thresholds fitted to each patient's tiles, as `tile` fits them to a slide."""
    out = np.empty(tiles.masks.shape, np.uint8)
    for group in np.unique(tiles.groups):
        own = np.flatnonzero(tiles.groups == group)
        fitted = fit_stain_mask((NUCLEUS,), tiles.images[own], mpp)
        for place in own:
            out[place] = fitted.segment(tiles.images[place], mpp).mask
    return out


def _comparison(study: Study) -> LearnerComparison:
    return comparison_of(study, TRAIN_TILES, TEST_TILES, SEEDS)


def _difference(task: MaskTask, counts: dict[str, np.ndarray]) -> tuple[float, float]:
    """Ends of the interval of the learner's Dice less that of the stain."""
    low, high = dice_difference(task, counts["by_stain"], counts[""])["interval"]
    return low, high
