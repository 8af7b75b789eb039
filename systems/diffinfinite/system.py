"""Aversa et al. 2023, DiffInfinite: masks of a label, then tiles of the masks, and slides of a label alone; how much of real tissue they cover."""

from __future__ import annotations

import shutil
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import center_of_mass, label
from scipy.spatial.distance import cdist

from histoloom.conditions.counts import islands
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.drawn import write_drawn
from histoloom.data.rows import spread, spread_by
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.report.pictures import mask_picture
from histoloom.slides.woven import CONDITION, SLIDE
from histoloom.systems import Measured, paired_interval

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample", "sample_slides")
NEIGHBOURS, CROP, MOST = 3, 64, 1000
"""Of recall, px of a slide's crops, and held-out tiles that are looked at."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients, whose nuclei are known; or her2st, of whose sections C5 is held out."""
    if data is None:
        write_drawn(folder)
        return
    (folder / "data/slides").mkdir(parents=True, exist_ok=True)
    shutil.copy(data / "spots.csv", folder / "manifests/spots.csv")
    rows = []
    for name, split in {"C2": "train", "C3": "train", "C4": "val", "C5": "test"}.items():
        shutil.copy(data / f"slides/{name}.tif", folder / f"data/slides/{name}.tif")
        rows.append({"slide_id": name, "path": f"{name}.tif", "patient_id": "HER2ST-C", "split": split})
    pd.DataFrame(rows).to_csv(folder / "manifests/slides.csv", index=False)


def measure(studies: list[Study]) -> Measured:
    """Recall of held-out tiles by tiles of made masks, beside that by tiles of a label; the same at slide scale; and what the masks are like."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    tower = load_extractor("efficientnet-lite0", "cpu")
    rows, made = store.rows(), synthetic.rows()
    test = spread(rows[rows["split"] == "test"], MOST)
    real = tower.features(store.read(test))
    of = {name: tower.features(synthetic.read(group)) for name, group in made.groupby("request")}
    found = {name: covered(real, features) for name, features in of.items()}
    woven = tower.features(np.concatenate([_crops(_top(path / SLIDE), CROP) for path in _woven(study)]))
    large = (
        tower.features(_neighbours(store, rows[rows["split"] == "test"])) if study.params.tile.tile_px < CROP else real
    )
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
            **_counts_obeyed(store, rows, synthetic, made[made["request"] == "of-made-masks"], study),
            **_masks(store, test, synthetic, made[made["request"] == "of-made-masks"], study),
        },
    }


def shown(study: Study) -> dict[str, np.ndarray]:
    """Made masks and their tiles, tiles of a label, and the woven slides with their masks."""
    store, synthetic = study.real(), TileStore(study.synthetic)
    rows, made = store.rows(), synthetic.rows()
    few = {name: spread_by(group, group["label"], 5)[:10] for name, group in made.groupby("request")}
    test = rows[rows["split"] == "test"]
    woven = _woven(study)
    return {
        "real, held out": store.read(spread_by(test, test["label"], 5)[:10]),
        "masks of a label and a count": mask_picture(synthetic.read(few["of-made-masks"], "mask")),
        "their tiles": synthetic.read(few["of-made-masks"]),
        "tiles of a label, without masks": synthetic.read(few["of-a-label"]),
        f"masks of slides: {', '.join(path.name for path in woven)}": mask_picture(
            np.stack([_top(path / CONDITION) for path in woven])
        ),
        "their slides": np.stack([_top(path / SLIDE) for path in woven]),
    }


def covered(points: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Whether each point lies no farther from one of `by` than that one's third nearest neighbour among them, (n,) bool."""
    radii = np.sort(cdist(by, by), 1)[:, NEIGHBOURS]
    return (cdist(points, by) <= radii).any(1)


def _woven(study: Study) -> list[Path]:
    return [study.woven / slide.name for slide in study.params.sample_slides.slides]


def _neighbours(store: TileStore, rows: pd.DataFrame) -> np.ndarray:
    """Four tiles that touch, as one picture of twice the side."""
    places = ["slide_id", "x_level0_px", "y_level0_px"]
    side = int(np.diff(np.sort(rows["x_level0_px"].unique())).min())  # tiles lie side by side
    by_place = {tuple(place): number for number, place in enumerate(rows[places].itertuples(index=False))}
    out: list[np.ndarray] = []
    for slide, x, y in by_place:
        four = [by_place.get((slide, x + dx, y + dy)) for dy in (0, side) for dx in (0, side)]
        if None not in four:
            a, b, c, d = store.read(rows.iloc[four])
            out.append(np.vstack([np.hstack([a, b]), np.hstack([c, d])]))
        if len(out) == MOST:
            break
    return np.stack(out)


def _top(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def _crops(picture: np.ndarray, side: int) -> np.ndarray:
    """Every side x side px, at half that stride."""
    places = [range(0, whole - side + 1, side // 2) for whole in picture.shape[:2]]
    return np.stack([picture[y : y + side, x : x + side] for y in places[0] for x in places[1]])


def _masks(
    store: TileStore, test: pd.DataFrame, synthetic: TileStore, made: pd.DataFrame, study: Study
) -> dict[str, float]:
    """What real masks, made ones, and those of woven slides are like, by label."""
    classes, out = study.params.tile.masks.classes, {}
    for slide in study.params.sample_slides.slides:
        name = slide.label
        masks = {
            "real": store.read(test[test["label"] == name], "mask"),
            "made": synthetic.read(made[made["label"] == name], "mask"),
            "woven": _crops(_top(study.woven / slide.name / CONDITION), CROP),
        }
        for kind, ids in masks.items():
            found = _nuclei(ids == 1 + classes.index("nucleus")) | _regions(ids, classes)
            out |= {f"{what}_{kind}_{name}": value for what, value in found.items()}
    return out


def _regions(masks: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    """Of masks (n, h, w) of several classes: each one's share of the area, and how many of 1,000 pairs of pixels side by side are of two of them."""
    if len(classes) < 2:
        return {}
    out = {f"area_of_{name}": float((masks == 1 + place).mean()) for place, name in enumerate(classes)}
    pairs = np.concatenate(
        [
            np.stack([a.ravel(), b.ravel()])
            for a, b in ((masks[:, 1:], masks[:, :-1]), (masks[:, :, 1:], masks[:, :, :-1]))
        ],
        1,
    )
    for (i, first), (j, second) in combinations(enumerate(classes, 1), 2):
        both = np.isin(pairs, (i, j)).all(0) & (pairs[0] != pairs[1])
        out[f"touching_{first}_{second}"] = 1000 * float(both.mean())
    return out


def _counts_obeyed(
    store: TileStore, rows: pd.DataFrame, synthetic: TileStore, made: pd.DataFrame, study: Study
) -> dict[str, float]:
    """Nuclei that masks were to have against those that they have: Pearson's r, and the mean difference in nuclei a tile."""
    asked = store.read(rows.set_index("tile_id").loc[made["condition_ref"]].reset_index(), "mask")
    nucleus = study.params.tile.masks.classes.index("nucleus")
    both = (asked, synthetic.read(made, "mask"))
    wanted, found = (np.array([islands(mask, nucleus + 1)[nucleus] for mask in masks]) for masks in both)
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
