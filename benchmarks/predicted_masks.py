"""Whether predicted masks of unannotated slides help a segmenter, as conditions of a generator, where few patients are annotated.

Two train patients are annotated. A segmenter of these finds masks on the other train slides (`histoloom predict`). One generator learns the two
patients' tiles, another all tiles, of which most have predicted masks. U-Nets of as many steps then learn the annotated tiles, alone or with others:
those that each generator made, and the unannotated tiles with their predicted masks. What is measured is Dice on held-out patients.

Data are drawn unless --data names a folder that holds monuseg.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.run import arguments, report
from benchmarks.studies import Study
from histoloom.config.learners import PlainLearner
from histoloom.data.drawn import write_drawn
from histoloom.data.nuclei_sets import monuseg_slides
from histoloom.data.rows import spread
from histoloom.data.store import UNKNOWN, TileStore
from histoloom.uplift.learner_comparison import Fold, LearnerComparison, MaskedTiles, dice_difference, mean_dice
from histoloom.uplift.tasks import MaskTask

ANNOTATED, MADE, TEST_TILES, CONTRAST = 2, 256, 400, 0.1
STEPS, SEEDS = 400, 3
UNET, TEST = PlainLearner(name="unet"), "test"
_PARAMS: dict[str, Any] = {
    "tile": {
        "mpp": 0.5, "tile_px": 32, "stride_px": 32, "tissue": {"mpp": 4.0, "min_fraction": 0.1, "min_area_um2": 100},
        "labels": {"source": "none"}, "masks": {"source": "raster", "classes": ["nucleus"]},
    },
    "encode": {"symmetries": "turns"},
    "train_denoiser": {
        "target": "pixels", "conditions": ["mask"], "map_input": "spade", "prediction": "sample", "channels": [24, 48, 48],
        "batch_size": 16, "learning_rate": 1e-3, "ema_decay": 0.99, "drop": {"mask": 0.1},
    },
    "plan": {
        "evaluation_tiles": 0, "target": "none", "batch_size": 64,
        "requests": [{"name": "of-masks", "tiles": MADE}],
    },
    "sample": {"scheduler": "ddim", "steps": 20, "guidance": 1.5},
    "filter": {"use": ["mask"]},
    "uplift": {"seeds": 0},
}  # fmt: skip


def main() -> None:
    options = arguments(__doc__, work="keep the studies here", data="a folder that holds monuseg; unstated, drawn data")
    steps, seeds = (4, 1) if options.smoke else (STEPS, SEEDS)
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).absolute()
        keys, sizes = _measured(work, options.data, steps, seeds)
    sizes |= {"seeds": seeds, "steps": steps, "data": "monuseg" if options.data else "drawn"}
    report("predicted_masks", options.smoke, sizes, keys, {}, options.json)


def _measured(work: Path, data: Path | None, steps: int, seeds: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Dice of each arm and its gains, and how many tiles they rest on."""
    few, every = _studies(work, data, steps)
    train = MaskedTiles.of(few.tiles, few.tiles.rows().query("split == 'train' and masked"))
    rows = every.tiles.rows()
    found = MaskedTiles.of(every.tiles, rows.query("split == 'train' and predicted"))
    test = MaskedTiles.of(few.tiles, spread(few.tiles.rows().query("split == 'test'"), TEST_TILES))
    made = {name: _made(study) for name, study in (("annotated", few), ("predicted", every))}
    arms = {
        "annotated": train,
        "with_predicted_masks": train.joined(found),
        "with_tiles_of_annotated_masks": train.joined(made["annotated"]),
        "with_tiles_of_predicted_masks": train.joined(made["predicted"]),
        "with_both": train.joined(found).joined(made["predicted"]),
    }
    task = MaskTask(("nucleus",), test.groups)
    counts = {
        name: LearnerComparison(("nucleus",), [Fold(tiles, {TEST: test})], work / "learners", steps, 8, seeds).counts(
            UNET, TEST
        )
        for name, tiles in arms.items()
    }
    figures: dict[str, float] = {}
    for name, of in counts.items():
        figures[f"dice_{name}"] = mean_dice(task, of)
    pairs = {
        "predicted_masks": ("annotated", "with_predicted_masks"),
        "tiles_of_annotated_masks": ("annotated", "with_tiles_of_annotated_masks"),
        "tiles_of_predicted_masks": ("annotated", "with_tiles_of_predicted_masks"),
        "tiles_beside_the_masks_themselves": ("with_predicted_masks", "with_tiles_of_predicted_masks"),
        "both_beside_the_masks_themselves": ("with_predicted_masks", "with_both"),
    }
    for name, (before, after) in pairs.items():
        difference = dice_difference(task, counts[before], counts[after])
        figures[f"gain_{name}"] = difference["difference"]
        figures |= {f"gain_{name}_{end}": value for end, value in zip(("low", "high"), difference["interval"])}
    figures |= {
        "predicted_px_known": float((found.masks != UNKNOWN).mean()), "predicted_px_right": _right(every, rows),
    }  # fmt: skip
    return figures, {
        "annotated_tiles": len(train.images), "predicted_tiles": len(found.images), "test_tiles": len(test.images),
        "test_patients": len({*test.groups}),
    }  # fmt: skip


def _studies(work: Path, data: Path | None, steps: int) -> tuple[Study, Study]:
    """One of the annotated slides alone, and one of all, in which the others have predicted masks."""
    drawn = work / "slides"
    if not (drawn / "manifests/slides.csv").exists():
        if data is None:
            write_drawn(drawn, contrast=CONTRAST)
        else:
            slides = monuseg_slides(drawn, data / "monuseg").drop(columns="organ")
            (drawn / "manifests").mkdir(exist_ok=True)
            slides.to_csv(drawn / "manifests/slides.csv", index=False)
    slides = pd.read_csv(drawn / "manifests/slides.csv", dtype=str).drop(columns=["site", "label"], errors="ignore")
    patients = sorted(slides.loc[slides["split"] == "train", "patient_id"].unique())
    unknown = slides["patient_id"].isin(patients[ANNOTATED:])
    files = {f"data/slides/{path.name}": path for path in (drawn / "data/slides").iterdir()}
    params = {
        **_PARAMS,
        "train_denoiser": {**_PARAMS["train_denoiser"], "steps": steps},
        "train_filters": {"segmenter_steps": steps},
    }
    few = Study(work / "few", params, slides[~unknown].to_dict("records"), files, workers=0)
    few.run(
        "tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "train_filters", "plan", "sample"
    )
    for row in slides[unknown].itertuples():
        files |= few.predicted(row.slide_id, drawn / "data/slides" / row.path, row.mpp)
    others = slides[unknown].drop(columns="instances")
    others = others.assign(predicted=[f"predicted/{name}/prediction.json" for name in others["slide_id"]])
    rows = pd.concat([slides[~unknown], others]).fillna("").to_dict("records")
    every = Study(work / "every", params, rows, files, workers=0)
    every.run("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
    return few, every


def _right(study: Study, rows: pd.DataFrame) -> float:
    """Of the known pixels of predicted masks, how many are as the slide's own annotation has them."""
    work, right, known = study.folder.parent / "slides", 0, 0
    slides = pd.read_csv(work / "manifests/slides.csv", dtype=str).set_index("slide_id")
    for slide_id, own in rows.query("split == 'train' and predicted").groupby("slide_id"):
        with Image.open(work / "data/slides" / slides.loc[slide_id, "instances"]) as picture:
            truth = np.asarray(picture) > 0
        step = round(own["mpp"].iloc[0] / float(slides.loc[slide_id, "mpp"]))
        for row, mask in zip(own.itertuples(), study.tiles.read(own, "mask")):
            y, x = row.y_level0_px, row.x_level0_px
            there = truth[y + step // 2 :: step, x + step // 2 :: step][: len(mask), : len(mask)]
            told = mask != UNKNOWN
            right, known = right + int((there == (mask == 1))[told].sum()), known + int(told.sum())
    return right / max(known, 1)


def _made(study: Study) -> MaskedTiles:
    store = TileStore(study.folder / "data/synthetic")
    return MaskedTiles.of(store, store.rows())


if __name__ == "__main__":
    main()
