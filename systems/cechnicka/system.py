"""Cechnicka et al. 2023: pairs of made masks and tiles of them, on which a segmenter begins before it learns real tiles. Beside real tiles alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from histoloom.data.drawn import RARE, write_two_classes
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.report.pictures import mask_picture
from histoloom.systems import Measured
from histoloom.uplift.hospitals import BASELINE, OWN
from histoloom.uplift.learner_comparison import Fold, LearnerComparison, MaskedTiles, dice_difference, mean_dice
from histoloom.uplift.tasks import MaskTask

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
SEEDS, MOST = 3, 1000


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients with two classes of nuclei: full ones, and hollow ones, which are rare in train."""
    if data is not None:
        raise HistoloomError("cechnicka takes drawn data so far: leave --data out.")
    write_two_classes(folder)


def measure(studies: list[Study]) -> Measured:
    """Dice by patient of a U-Net that begins on made pairs and goes on with real tiles, beside one that has real tiles alone in as many steps."""
    (study,) = studies
    real, test = (_real(study, split) for split in ("train", "test"))
    pairs, of_real = (_made(study, name) for name in ("pairs", "of-real-masks"))
    arms = {
        "real": Fold(real, {OWN: test}),
        "made_then_real": Fold(pairs.joined(real), {OWN: test}, first=len(pairs.images)),
        "made_and_real": Fold(pairs.joined(real), {OWN: test}),
        "of_real_masks_then_real": Fold(of_real.joined(real), {OWN: test}, first=len(of_real.images)),
        "made_alone": Fold(pairs, {OWN: test}),
    }
    params, work = study.params, study.root / ".work/learners"
    config, classes = params.uplift, params.tile.masks.classes
    counts = {
        name: LearnerComparison(classes, [fold], work, config.steps, config.batch_size, SEEDS).counts(BASELINE, OWN)
        for name, fold in arms.items()
    }
    # of the rare class alone: its three columns
    rare = MaskTask((classes[RARE - 1],), test.groups)
    both = MaskTask(classes, test.groups)
    of_rare = {name: found[:, :, 3 * (RARE - 1) : 3 * RARE] for name, found in counts.items()}
    low, high = dice_difference(rare, of_rare["real"], of_rare["made_then_real"])["interval"]
    dice = {name: mean_dice(rare, found) for name, found in of_rare.items()}
    return {
        "value": dice["made_then_real"],
        "baseline": dice["real"],
        "difference_interval": (low, high),
        "unit": "Dice of the rare class by patient; baseline real tiles alone, as many steps",
        "n": len(test.images),
        "more": {f"rare_{name}": value for name, value in dice.items() if name not in ("made_then_real", "real")}
        | {f"both_classes_{name}": mean_dice(both, found) for name, found in counts.items()}
        | {
            "rare_of_nuclei_in_made_masks": _share(pairs.masks),
            "rare_of_nuclei_in_real_masks": _share(real.masks),
        },
    }


def shown(study: Study) -> dict[str, np.ndarray]:
    """Made masks with their tiles, and real ones."""
    real, pairs = _real(study, "train"), _made(study, "pairs")
    rare = np.argsort(-(pairs.masks == RARE).sum((1, 2)), kind="stable")[:5]
    few = [*rare, *(n for n in range(5))]
    return {
        "masks that a segmenter found in made tiles, the five with most of the rare class first": mask_picture(
            pairs.masks[few]
        ),
        "tiles of these masks": pairs.images[few],
        "real masks": mask_picture(real.masks[:10]),
        "real tiles": real.images[:10],
    }


def _real(study: Study, split: str) -> MaskedTiles:
    store = study.real()
    rows = store.rows()
    return MaskedTiles.of(store, rows[rows["split"] == split].head(MOST))


def _made(study: Study, request: str) -> MaskedTiles:
    store = TileStore(study.synthetic)
    rows = store.rows()
    return MaskedTiles.of(store, rows[rows["request"] == request])


def _share(masks: np.ndarray) -> float:
    return float((masks == RARE).sum() / max(1, (masks > 0).sum()))
