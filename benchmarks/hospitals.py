"""The question `hospital` of `benchmarks.uplift`, in both directions: nuclei of a set of which no nucleus was drawn for the learner.

A segmenter of the labelled set predicts masks for the other's unlabelled tiles. With these the packaged model is adapted to both sets. Then it paints
in the look of the other set: masks that people drew, each with the embedding of an unlabelled tile of that set, and predicted masks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.inputs import dealt, real_data
from benchmarks.packaged import ADAPTED, MODEL, seen_by
from benchmarks.studies import Study
from histoloom.data.nuclei_sets import monuseg_slides, tnbc_slides

DRAWN = {"monuseg": "instances", "tnbc": "mask"}
"""Column of slides.csv that names what was drawn in a set."""
SURE = 0.6
"""A pixel of a predicted mask is known from this certainty on: looked at before anything was measured."""
FOLLOWS = {"mask": 2.0, "cohort": 1.5, "image": 1.5, "text": 1.0}
"""Guidance of the tiles' conditions."""
_SIDE, _MADE = 64, 400
_STAGES = ("tile", "train_encoders", "train_filters")


def hospital(
    root: Path, fold: int, fraction: float, uplift: dict[str, Any], taught: str = "monuseg", asked: str = "tnbc"
) -> Study:
    """Nuclei of one set drawn, `taught`. Of the other set's patients, `asked`, one half lies in train without masks, and the other is tested on.

    Patients that the packaged model saw are never tested on.
    """
    folder = root / f"{taught}-to-{asked}-{fold}-{fraction:g}"
    known, target = (_nuclei(folder, name) for name in (taught, asked))
    known["split"] = np.where(pd.factorize(known["patient_id"])[0] % 6 == 5, "val", "train")
    seen = {f"P{name[-2:]}" for name in seen_by(MODEL, asked)}
    unseen = target[~target["patient_id"].isin(seen)]
    half = dealt(unseen["patient_id"], 2).reindex(target["patient_id"]).to_numpy()
    target["split"] = np.where(half == fold, "test", "train")
    order = np.random.default_rng(1).permutation(known.loc[known["split"] == "train", "patient_id"].unique())
    kept = {*order[: max(2, round(fraction * len(order)))]}
    known.loc[(known["split"] == "train") & ~known["patient_id"].isin(kept), DRAWN[taught]] = None
    drawn = known[known[DRAWN[taught]].notna()]
    learner = Study(
        folder / "learner",
        _params(taught, asked, uplift, 400),
        drawn.fillna("").to_dict("records"),
        _files(folder, drawn),
    )
    learner.run(*_STAGES)
    slides, files = pd.concat([known, target], ignore_index=True), {}
    slides["predicted"] = None
    hidden = (slides["split"] == "train") & ~slides["slide_id"].isin(drawn["slide_id"])
    for place in slides.index[hidden]:
        row = slides.loc[place]
        files |= learner.predicted(row["slide_id"], folder / "data/slides" / row["path"], row["mpp"])
        slides.loc[place, "predicted"] = f"predicted/{row['slide_id']}/prediction.json"
    slides.loc[hidden, list(DRAWN.values())] = None
    return Study(folder, _params(taught, asked, uplift, 200), slides.fillna("").to_dict("records"), files)


def _params(taught: str, asked: str, uplift: dict[str, Any], steps: int) -> dict[str, Any]:
    """Params of a study whose filters' segmenter takes so many steps."""
    drawn = {"tiles": _MADE, "where": {"cohort": {"site": taught}}}
    of_target = {"cohort": {"site": asked}}
    return {
        "tile": {
            "mpp": 0.5, "tile_px": _SIDE, "stride_px": _SIDE, "tissue": {"mpp": 4.0, "min_fraction": 0.1, "min_area_um2": 100}, "caption": "H&E",
            "labels": {"source": "none", "classes": [], "unlabelled": "keep"},
            "masks": {"source": "raster", "classes": ["nucleus"], "least_certainty": SURE},
        },
        **ADAPTED,
        "train_encoders": {**ADAPTED["train_encoders"], "cohort": {"columns": ["site"]}},
        "train_denoiser": {
            **ADAPTED["train_denoiser"], "steps": 800, "conditions": ["magnification", "cohort", "mask", "image", "text"],
            "drop": {"magnification": 0, "cohort": 0.1, "mask": 0.2, "image": 0.4, "text": 0.3},
        },
        "plan": {
            "target": "none", "batch_size": 32,
            "requests": [
                {"name": "real-masks", **drawn, "change": of_target, "like": of_target},
                {"name": "predicted-masks", "tiles": _MADE, "where": of_target},
                {"name": "unswapped", **drawn},
            ],
        },
        "sample": {**ADAPTED["sample"], "guidance": FOLLOWS},
        "train_filters": {"segmenter_steps": steps},
        "filter": {"use": ["quality", "mask", "near_copy"]},
        "uplift": {"task": "mask", "steps": 400, "batch_size": 8, "learning_rate": [2e-3, 5e-4], "ratios": [1.0], **uplift},
    }  # fmt: skip


def _nuclei(folder: Path, name: str) -> pd.DataFrame:
    slides, others = {"monuseg": (monuseg_slides, "organ"), "tnbc": (tnbc_slides, "covered")}[name]
    return slides(folder, real_data() / name).assign(site=name).drop(columns=others)


def _files(folder: Path, slides: pd.DataFrame) -> dict[str, Path]:
    """The pictures of slides and of what was drawn there, by their place in a study."""
    columns = ["path", *(name for name in DRAWN.values() if name in slides)]
    named = {name for column in columns for name in slides[column].dropna()}
    return {f"data/slides/{name}": folder / "data/slides" / name for name in sorted(named)}
