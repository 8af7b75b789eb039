"""Learners of masks beside each other in a study of several sites: each learns on one, and is tested on held-out patients of it and of the others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypedDict

import pandas as pd

from histoloom.config.learners import DiffusionLearner, LearnerConfig, PlainLearner
from histoloom.data.rows import spread_by
from histoloom.data.study_folder import Study
from histoloom.uplift.analysis import Difference
from histoloom.uplift.learner_comparison import Fold, LearnerComparison, MaskedTiles

OWN, OTHER = "own", "other"
BASELINE = PlainLearner(name="unet")


def comparison_of(study: Study, train_tiles: int, test_tiles: int, seeds: int, **more: Any) -> LearnerComparison:
    """By the steps and the batch that `uplift` states, on the folds of the sites (`folds_by_site`, which `more` is told)."""
    config, folds = study.params.uplift, folds_by_site(study, train_tiles, test_tiles, **more)
    classes, work = study.params.tile.masks.classes, study.root / ".work/learners"
    return LearnerComparison(classes, folds, work, config.steps, config.batch_size, seeds)


def learner_of_study(study: Study) -> DiffusionLearner:
    """The learner that is told what the study's denoiser of masks is told, and its first request."""
    params, (request, *_) = study.params, study.params.plan.requests
    return DiffusionLearner.of(params.train_denoiser, params.sample, request.samples, request.reduce.name)


class LearnerMeasures(TypedDict):
    """Dice by patient of the same site's held-out patients, beside the small U-Net's, and further numbers by name."""

    value: float
    baseline: float
    difference_interval: tuple[float, float]
    unit: str
    n: int
    more: dict[str, float]


def folds_by_site(
    study: Study, train_tiles: int, test_tiles: int, *, label_patients: int | None = None, models: Path | None = None
) -> list[Fold]:
    """A fold for each site of slides.csv.

    Parameters
    ----------
    train_tiles, test_tiles : at most so many, spread evenly over patients.
    models : the study's, for a learner that reads them.
    label_patients : of how many train patients masks are known; the other patients' tiles are unlabelled. None for all.
    """
    store = study.real()
    rows = store.rows()
    rows = rows[rows["masked"].astype(bool)]
    sites = pd.read_csv(study.root / "manifests/slides.csv", dtype=str).set_index("slide_id")["site"]
    of = rows["slide_id"].map(sites)

    def tiles(chosen: pd.DataFrame, most: int) -> MaskedTiles:
        kept = spread_by(chosen, chosen["split_group"], -(-most // max(1, chosen["split_group"].nunique())))
        return MaskedTiles.of(store, kept)

    folds = []
    for site in sorted(of.unique()):
        train, test = (rows[(rows["split"] == split) & (of == site)] for split in ("train", "test"))
        elsewhere = rows[(rows["split"] == "test") & (of != site)]
        known = sorted(train["split_group"].unique())[:label_patients]
        labelled, rest = train[train["split_group"].isin(known)], train[~train["split_group"].isin(known)]
        folds.append(
            Fold(
                tiles(labelled, train_tiles),
                {OWN: tiles(test, test_tiles), OTHER: tiles(elsewhere, test_tiles)},
                models,
                tiles(rest, 8 * train_tiles).images if len(rest) else None,
            )
        )
    return folds


def measured(
    comparison: LearnerComparison, learner: LearnerConfig, others: Mapping[str, LearnerConfig] = MappingProxyType({})
) -> LearnerMeasures:
    """A learner beside the small U-Net and beside others by name, on the same site and on the others."""
    own, other = (comparison.difference(BASELINE, learner, test) for test in (OWN, OTHER))
    more = {"difference_other_site": other["difference"], **_ends("difference_other_site", other)}
    for name, one in {"": learner, "_baseline": BASELINE, **{f"_{name}": one for name, one in others.items()}}.items():
        f1, distance = comparison.borders(one, OWN)
        more |= {f"dice_other_site{name}": comparison.dice(one, OTHER)}
        more |= {f"border_f1{name}": f1, f"hausdorff95_px{name}": distance}
        more |= {f"{key}{name}": float(value) for key, value in comparison.calibration(one, OWN).items()}  # type: ignore[arg-type]
    for name, one in others.items():
        change = comparison.difference(one, learner, OWN)
        more |= {f"dice_{name}": comparison.dice(one, OWN), f"difference_from_{name}": change["difference"]}
        more |= _ends(f"difference_from_{name}", change)
    low, high = own["interval"]
    return {
        "value": comparison.dice(learner, OWN),
        "baseline": comparison.dice(BASELINE, OWN),
        "difference_interval": (low, high),
        "unit": "Dice by patient; baseline a U-Net at equal labels and steps",
        "n": len(comparison.truth(OWN)),
        "more": more,
    }


def _ends(name: str, difference: Difference) -> dict[str, float]:
    return {f"{name}_{end}": value for end, value in zip(("low", "high"), difference["interval"])}
