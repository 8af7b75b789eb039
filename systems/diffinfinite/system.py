"""Aversa et al. 2023, DiffInfinite: masks of a label, then tiles of the masks, and slides of a label alone; how much of real tissue they cover."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import center_of_mass, label
from scipy.spatial.distance import cdist

from histoloom.conditions.counts import islands
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.drawn import LABELS, write_drawn
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.slides.woven import CONDITION, SLIDE
from histoloom.systems import Measured, paired_interval

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample", "sample_slides")
NEIGHBOURS, CROP = 3, 64


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, whose nuclei are known."""
    if data is not None:
        raise HistoloomError("diffinfinite takes drawn data so far: leave --data out.")
    write_drawn(folder)


def measure(studies: list[Study]) -> Measured:
    """Recall of held-out tiles by tiles of made masks, beside that by tiles of a label; the same at slide scale; and what the masks are like."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    tower = load_extractor("efficientnet-lite0", "cpu")
    rows, made = store.rows(), synthetic.rows()
    test = rows[rows["split"] == "test"]
    real = tower.features(store.read(test))
    of = {name: tower.features(synthetic.read(group)) for name, group in made.groupby("request")}
    found = {name: covered(real, features) for name, features in of.items()}
    large, woven = (tower.features(crops) for crops in (_crops_of_slides(study, test), _crops_of_woven(study)))
    chain, plain = found["of-made-masks"], found["of-a-label"]
    return {
        "value": float(chain.mean()),
        "baseline": float(plain.mean()),
        "difference_interval": paired_interval(chain.astype(float) - plain, test["split_group"]),
        "unit": "recall of held-out tiles (Kynkaanniemi et al. 2019)",
        "n": len(test),
        "more": {
            "recall_of_real_masks": float(found["of-real-masks"].mean()),
            **{f"precision_{name.replace('-', '_')}": float(covered(f, real).mean()) for name, f in of.items()},
            "recall_of_slides": float(covered(large, woven).mean()),
            "precision_of_slides": float(covered(woven, large).mean()),
            **_counts_obeyed(store, rows, synthetic, made[made["request"] == "of-made-masks"]),
            **_masks(store, test, synthetic, made[made["request"] == "of-made-masks"], study),
        },
    }


def covered(points: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Whether each point lies no farther from one of `by` than that one's third nearest neighbour among them, (n,) bool."""
    radii = np.sort(cdist(by, by), 1)[:, NEIGHBOURS]
    return (cdist(points, by) <= radii).any(1)


def _crops_of_slides(study: Study, test: pd.DataFrame) -> np.ndarray:
    slides = [np.asarray(Image.open(study.root / f"data/slides/{name}.png")) for name in sorted({*test["slide_id"]})]
    return np.concatenate([_crops(slide) for slide in slides])


def _crops_of_woven(study: Study) -> np.ndarray:
    return np.concatenate([_crops(_top(study.woven / name / SLIDE)) for name in LABELS])


def _top(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def _crops(picture: np.ndarray) -> np.ndarray:
    """Every CROP x CROP px, at half that stride."""
    places = [range(0, side - CROP + 1, CROP // 2) for side in picture.shape[:2]]
    return np.stack([picture[y : y + CROP, x : x + CROP] for y in places[0] for x in places[1]])


def _masks(
    store: TileStore, test: pd.DataFrame, synthetic: TileStore, made: pd.DataFrame, study: Study
) -> dict[str, float]:
    """What nuclei are like in real masks, in made ones, and in those of woven slides, by label."""
    out = {}
    for name in LABELS:
        masks = {
            "real": store.read(test[test["label"] == name], "mask"),
            "made": synthetic.read(made[made["label"] == name], "mask"),
            "woven": _crops(_top(study.woven / name / CONDITION)),
        }
        for kind, ids in masks.items():
            out |= {f"{what}_{kind}_{name}": value for what, value in _nuclei(ids > 0).items()}
    return out


def _counts_obeyed(store: TileStore, rows: pd.DataFrame, synthetic: TileStore, made: pd.DataFrame) -> dict[str, float]:
    """Nuclei that masks were to have against those that they have: Pearson's r, and the mean difference in nuclei a tile."""
    asked = store.read(rows.set_index("tile_id").loc[made["condition_ref"]].reset_index(), "mask")
    wanted, found = (
        np.array([islands(mask, 1)[0] for mask in masks]) for masks in (asked, synthetic.read(made, "mask"))
    )
    return {
        "counts_r": float(np.corrcoef(wanted, found)[0, 1]),
        "counts_mean_difference": float(np.abs(found - wanted).mean()),
        "counts_mean_difference_if_shuffled": float(np.abs(found[:, None] - wanted).mean()),
    }


def _nuclei(masks: np.ndarray) -> dict[str, float]:
    """Of masks (n, h, w): their share of the area, nuclei in 1,000 px, and px from a nucleus to its nearest."""
    apart, count = [], 0
    for mask in masks:
        numbers, found = label(mask)
        count += found
        if found > 1:
            places = np.array(center_of_mass(mask, numbers, range(1, found + 1)))
            apart.append(np.sort(cdist(places, places), 1)[:, 1].mean())
    nearest = float(np.mean(apart)) if apart else float("nan")
    return {"area": float(masks.mean()), "nuclei_per_1000_px": 1000 * count / masks.size, "nearest_px": nearest}
