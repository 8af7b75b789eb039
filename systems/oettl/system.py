"""Öttl et al. 2022: masks edited so that a rare class is balanced, tiles made under them, and a segmenter trained with and without these."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import distance_transform_edt

from histoloom.cluster import one_thread
from histoloom.data.drawn import RARE, RIM_PX, write_two_classes
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError
from histoloom.learners.dice import dice
from histoloom.learners.learner import Training, learner_of
from histoloom.report.pictures import mask_picture
from histoloom.slides.woven import SLIDE
from histoloom.systems import Measured, paired_interval
from histoloom.training.run import TrainingRun

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample", "sample_slides")
EDITED, MIDDLE = "p00", slice(32, 96)
"""The slide whose middle is edited, and where that is, px down and along."""
SEEDS, BATCH = 2, 8
"""Of the segmenters."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients with two classes of nuclei: full ones, and hollow ones, which are rare in train."""
    if data is not None:
        raise HistoloomError("oettl takes drawn data so far: leave --data out.")
    write_two_classes(folder)
    _write_edited(folder)


def _write_edited(folder: Path) -> None:
    """The first patient's mask with all nuclei of its middle made rare, and the middle as a polygon."""
    mask = np.array(Image.open(folder / f"data/slides/{EDITED}_mask.png"))
    middle = mask[MIDDLE, MIDDLE]
    mask[MIDDLE, MIDDLE] = np.where(middle > 0, RARE, 0)
    Image.fromarray(mask).save(folder / f"data/slides/{EDITED}_edited.png")
    low, high = MIDDLE.start, MIDDLE.stop
    ring = [[low, low], [high, low], [high, high], [low, high], [low, low]]
    hole = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    text = json.dumps({"type": "FeatureCollection", "features": [hole]})
    (folder / "manifests/edited.geojson").write_text(text, encoding="utf-8")


def measure(studies: list[Study]) -> Measured:
    """Dice of the rare class on held-out tiles that show it: of a segmenter of real tiles with as many edited ones, and of real ones alone."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    rows, made = store.rows(), synthetic.rows()
    train, test = (rows[rows["split"] == split] for split in ("train", "test"))
    real, shown = _read(store, train), _read(store, test)
    shows = (shown[1] == RARE).any((1, 2))
    test, asked = test[shows], (shown[0][shows], shown[1][shows])
    has_rare = np.flatnonzero((real[1] == RARE).any((1, 2)))
    again = np.resize(has_rare, len(train))
    arms = {"real": [real], "real_oversampled": [real, (real[0][again], real[1][again])]}
    for name in ("whole", "inpainted"):
        edited = made[made["request"] == name]
        for percent in (50, 100):
            arms[f"{name}_{percent}"] = [real, _read(synthetic, edited.head(round(percent / 100 * len(train))))]
    arms["synthetic_alone"] = [_read(synthetic, made[made["request"] == "whole"])]
    found = {name: _rare_dice(parts, asked, study.params.train_filters.segmenter_steps) for name, parts in arms.items()}
    ours, theirs = found["whole_100"], found["real"]
    return {
        "value": float(ours.mean()),
        "baseline": float(theirs.mean()),
        "difference_interval": paired_interval(ours - theirs, test["split_group"]),
        "unit": "Dice of the rare class; baseline real tiles alone",
        "n": len(test),
        "more": {name: float(scores.mean()) for name, scores in found.items() if name not in ("whole_100", "real")}
        | _slide(study),
    }


def _slide(study: Study) -> dict[str, float]:
    """Of the slide whose middle was made anew: how light the inside of nuclei is there, before and after, beside real rare ones; and what was kept."""
    before, after = (
        _picture(path) for path in (study.root / f"data/slides/{EDITED}.png", study.woven / "edited" / SLIDE)
    )
    nuclei, mask = (_picture(study.root / f"data/slides/{EDITED}_{name}.png") for name in ("nuclei", "mask"))
    inside, middle = distance_transform_edt(nuclei > 0) > RIM_PX, np.zeros(mask.shape, bool)
    middle[MIDDLE, MIDDLE] = True
    usual = inside & middle & (mask != RARE)
    names = study.real().rows(["slide_id"])["slide_id"].unique()
    rare = [_picture(study.root / f"data/slides/{name}.png")[_inside_of_rare(study, name)] for name in names]
    return {
        "slide_grey_inside_before": float(before[usual].mean()),
        "slide_grey_inside_after": float(after[usual].mean()),
        "grey_inside_of_real_rare_nuclei": float(np.concatenate(rare).mean()),
        "slide_kept_px_changed": float((before != after).any(-1)[~middle].mean()),
    }


def _inside_of_rare(study: Study, slide: str) -> np.ndarray:
    nuclei, mask = (_picture(study.root / f"data/slides/{slide}_{name}.png") for name in ("nuclei", "mask"))
    return (distance_transform_edt(nuclei > 0) > RIM_PX) & (mask == RARE)


def _picture(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def shown(study: Study) -> dict[str, np.ndarray]:
    """Tiles under edited masks, made as a whole and in their edited region alone; and the slide before and after."""
    store, synthetic = study.real(), TileStore(study.synthetic)
    truth, made = store.rows().set_index("tile_id", drop=False), synthetic.rows()
    few = {name: made[made["request"] == name].iloc[:10] for name in ("whole", "inpainted")}
    slide = [_picture(path) for path in (study.root / f"data/slides/{EDITED}.png", study.woven / "edited" / SLIDE)]
    return {
        "real tiles of train patients": store.read(truth.loc[few["inpainted"]["input_ref"]]),
        "the region with edited nuclei made anew: the mask": mask_picture(synthetic.read(few["inpainted"], "mask")),
        "and the tile": synthetic.read(few["inpainted"]),
        "the whole tile made: the mask": mask_picture(synthetic.read(few["whole"], "mask")),
        "and the tile ": synthetic.read(few["whole"]),
        "a slide, and the same with the nuclei of its middle made rare": np.stack([one[..., :3] for one in slide]),
    }


def _read(store: TileStore, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Images and masks."""
    return store.read(rows), store.read(rows, "mask")


def _rare_dice(
    parts: list[tuple[np.ndarray, np.ndarray]], asked: tuple[np.ndarray, np.ndarray], steps: int
) -> np.ndarray:
    """Dice of the rare class of each tile that is asked about, (n,), over the seeds of segmenters trained on all parts.

    parts : images and masks. steps : of training, the same however many these are.
    """
    images, masks = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
    scores = []
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as work, one_thread():
            run = TrainingRun("segmenter", steps, 2e-3, seed, Path(work), steps, warmup_steps=steps // 10)
            training = Training("unet", "mask", ("usual", "rare"), run, BATCH)
            found = learner_of("unet", "mask").fit(images, masks, training).predict(asked[0])
        scores.append(dice((found == RARE).astype(np.uint8), (asked[1] == RARE).astype(np.uint8), 1))
    return np.mean(scores, 0)
