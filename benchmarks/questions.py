"""The three questions of `benchmarks.uplift` that a sceptic would ask, each as studies on public sets.

`rare`: atypical mitoses of AMi-Br, of which few are labelled; half of its slides are held out, and mitoses of AtNorM-Br lie unlabelled in train.
`scanner`: a classifier of mitoses taught on all scanners but one, tested on that one. Its slides are dealt into halves, which are unlabelled target and
test in turn. `hospital`: nuclei of monuseg, tested on tnbc, whose patients are dealt into halves in the same way; its generator is trained here from nothing,
since the packaged one saw half of these patients.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.inputs import real_data
from benchmarks.packaged import MODEL
from benchmarks.studies import Study
from histoloom.data.nuclei_sets import monuseg_slides, tnbc_slides

QUESTIONS = {"rare": (0.05, 0.02, 0.1, 1.0), "scanner": (1.0,), "hospital": (1.0, 0.1)}
"""Question to its label fractions; the first is the one that the claim is about."""
FOLDS = {"rare": 1, "scanner": 2, "hospital": 2}
TARGET, POOL = "HamamatsuXR", "TCGA"
"""The scanner that is tested on, and the site of the tiles without labels."""
BAR = ["real", "strong", "strong+ssl", "strong+retrieval"]
TAKEN_OUT = {
    "rare": [
        "strong+unfiltered",
        "strong+synthetic-of-variations",
        "strong+synthetic-of-half-noised",
        "strong+synthetic-of-inpainted",
    ],
    "scanner": ["strong+unfiltered", "strong+synthetic-of-swapped", "strong+synthetic-of-inverted"],
    "hospital": ["strong+unfiltered", "strong+synthetic-of-real-masks", "strong+synthetic-of-scattered"],
}
"""Question to arms that lack an ingredient."""
_SIDE, _MPP, _MADE = 64, 0.25, 200
_LEARNT = {"pretraining": {"steps": 200, "batch_size": 32}, "seeds": 5}
_ADAPTED: dict[str, Any] = {
    "train_encoders": {"text": {"source": MODEL}},
    "train_autoencoder": {
        "init": MODEL, "down_factor": 4, "crop_px": 64, "detail_weight": 0.25, "perceptual_weight": 0.1, "steps": 200, "batch_size": 4,
        "learning_rate": 5e-4, "mixed_precision": "bf16",
    },
    "encode": {"batch_size": 16, "symmetries": "flips", "precision": "bf16", "mask_detail": 2},
    "train_denoiser": {"init": MODEL, "steps": 400, "batch_size": 16, "learning_rate": 5e-4, "ema_decay": 0.99, "mixed_precision": "bf16"},
    "sample": {"steps": 20, "guidance": 1.5, "precision": "bf16"},
    "filter": {"use": ["quality", "distance", "realism", "near_copy"], "min_yield": 0.02},
}  # fmt: skip


def rare(root: Path, _: int, fraction: float) -> Study:
    """All normal mitoses, and so many of the atypical ones, slide by slide in seeded order."""
    table = _mitoses()
    amibr = table["set"] == "AMi-Br"
    number = pd.Series(pd.factorize(table["slide_id"])[0], table.index) % 20
    test, val = number.isin([1, 3, 6, 8, 11, 13, 16, 18]), number.isin([4, 9, 14])
    table["split"] = np.where(amibr & test, "test", np.where(amibr & val, "val", "train"))
    scarce = table[amibr & (table["label"] == "atypical") & (table["split"] == "train")]
    slides = np.random.default_rng(0).permutation(scarce["slide_id"].unique())
    of_slide = scarce.groupby("slide_id").size()[slides].cumsum()
    kept = {*slides[: 1 + int((of_slide < fraction * len(scarce)).sum())]}
    table = table[~table.index.isin(scarce.index[~scarce["slide_id"].isin(kept)])].copy()
    table.loc[table["set"] != "AMi-Br", "label"] = ""
    conditions = ["magnification", "label", "image", "text"]
    real = {"where": {"label": "atypical"}, "like": "tile", "tiles": _MADE}
    requests = [
        {"name": "variations", **real},
        {"name": "half-noised", **real, "start": {"from": "tile", "strength": 0.5}},
        {
            "name": "inpainted", **real, "remake": {"centre_um": 10.0},
            "start": {"from": "tile", "strength": 0.8, "where": {"label": "normal"}},
        },
    ]  # fmt: skip
    return _of_mitoses(root / f"rare-{fraction:g}", table, conditions, requests, "rare")


def scanner(root: Path, fold: int, fraction: float) -> Study:
    """One half of the target's slides unlabelled in train, the other tested on; all other scanners labelled."""
    table = _mitoses()
    table = table[table["set"] == "AMi-Br"].copy()
    target = table["site"] == TARGET
    slides = {
        name: n
        for n, name in enumerate(np.random.default_rng(0).permutation(sorted(table.loc[target, "slide_id"].unique())))
    }
    half = table["slide_id"].map(slides).fillna(0).astype(int) % 2
    number = pd.Series(pd.factorize(table["slide_id"])[0], table.index)
    table["split"] = np.where(target & (half == fold), "test", np.where(~target & (number % 6 == 5), "val", "train"))
    hidden = np.random.default_rng(1).permutation(
        sorted(table.loc[~target & (table["split"] == "train"), "slide_id"].unique())
    )
    kept = {*hidden[: max(1, round(fraction * len(hidden)))]}
    table.loc[
        target & (table["split"] == "train") | ~target & (table["split"] == "train") & ~table["slide_id"].isin(kept),
        "label",
    ] = ""
    swap = {"change": {"cohort": {"site": TARGET}}, "tiles": 3 * _MADE // 2}
    requests = [
        request
        for label in ("normal", "atypical")
        for request in (
            {"name": f"swapped-{label}", "where": {"label": label}, "like": "tile", **swap},
            {
                "name": f"inverted-{label}",
                "where": {"label": label},
                **swap,
                "start": {"from": "tile", "inverted": True},
            },
        )
    ]
    return _of_mitoses(
        root / f"scanner-{fold}-{fraction:g}", table, ["magnification", "cohort", "image", "text"], requests, "scanner"
    )


def hospital(root: Path, fold: int, fraction: float) -> Study:
    """Nuclei of monuseg labelled, half of tnbc unlabelled in train; the generator learns both."""
    folder = root / f"hospital-{fold}-{fraction:g}"
    train = monuseg_slides(folder, real_data() / "monuseg").assign(site="monuseg").drop(columns="organ")
    train["split"] = np.where(np.arange(len(train)) % 6 == 5, "val", "train")
    target = tnbc_slides(folder, real_data() / "tnbc").assign(site="tnbc").drop(columns="covered")
    patients = sorted(target["patient_id"].unique())
    half = target["patient_id"].map(patients.index) % 2
    target["split"] = np.where(half == fold, "test", "train")
    target.loc[target["split"] == "train", "mask"] = None
    labelled = np.random.default_rng(0).permutation(sorted(train.loc[train["split"] == "train", "patient_id"].unique()))
    kept = {*labelled[: max(2, round(fraction * len(labelled)))]}
    train.loc[(train["split"] == "train") & ~train["patient_id"].isin(kept), "instances"] = None
    slides = pd.concat([train, target], ignore_index=True).fillna("").to_dict("records")
    swap = {"change": {"cohort": {"site": "tnbc"}}}
    params = {
        "tile": {
            "mpp": 0.5, "tile_px": 32, "stride_px": 32, "tissue": {"mpp": 4.0, "min_fraction": 0.1, "min_area_um2": 100},
            "labels": {"source": "none", "classes": []}, "masks": {"source": "raster", "classes": ["nucleus"]},
        },
        "train_encoders": {"cohort": {"columns": ["site"]}},
        "encode": {"symmetries": "turns"},
        "train_denoiser": {
            "target": "pixels", "conditions": ["cohort", "mask"], "map_input": "spade", "prediction": "sample", "channels": [24, 48, 48],
            "steps": 1200, "batch_size": 16, "learning_rate": 1e-3, "ema_decay": 0.995, "drop": {"cohort": 0.1, "mask": 0.3},
        },
        "plan": {
            "target": "none", "batch_size": 64,
            "requests": [
                {"name": "real-masks", "tiles": 300, "where": {"contains": {"nucleus": 0.1}}, **swap},
                {"name": "scattered", "tiles": 300, "where": {"contains": {"nucleus": 0.1}}, "change": {**swap["change"], "mask": {"scatter": True}}},
            ],
        },
        "sample": {"scheduler": "ddim", "steps": 20, "guidance": 1.5},
        "filter": {"use": ["quality", "mask", "near_copy"]},
        "train_filters": {"segmenter_steps": 400},
        "uplift": {
            "task": "mask", "arms": [*BAR, "strong+synthetic", *TAKEN_OUT["hospital"], "strong+synthetic-then-real"], "steps": 400, "batch_size": 8,
            "learning_rate": [2e-3, 5e-4], "ratios": [0.25], **_LEARNT,
        },
    }  # fmt: skip
    return Study(folder, params, slides, {})


def _mitoses() -> pd.DataFrame:
    """Path, set, label, slide_id and site of each mitosis; one without a slide is a slide of its own."""
    table = pd.read_csv(real_data() / "mitoses/tiles.csv").rename(columns={"domain": "site"})
    table = table.sort_values(["set", "site", "slide_id", "path"]).reset_index(drop=True)
    lone = pd.Series([f"{site}-{n}" for n, site in enumerate(table["site"])])
    table["slide_id"] = table["slide_id"].fillna(lone).str.replace(r"[^A-Za-z0-9]+", "-", regex=True)
    return table


def _of_mitoses(folder: Path, table: pd.DataFrame, conditions: list[str], requests: list[dict], question: str) -> Study:
    (folder / "data").mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "data/mitoses.npz",
        images=np.stack([_centre(real_data() / "mitoses" / path) for path in table["path"]]),
        **{name: table[name].to_numpy(str) for name in ("label", "slide_id", "split", "site")},
    )
    params = {
        "tile": {
            "manifest": None, "mpp": _MPP, "tile_px": _SIDE, "stride_px": _SIDE, "tissue": {"leave_out": []},
            "labels": {"source": "slide", "classes": ["normal", "atypical"], "unlabelled": "keep"},
            "sets": [{"path": "data/mitoses.npz", "name": "mitosis", "mpp": _MPP}], "caption": "H&E of breast",
        },
        **_ADAPTED,
        "train_encoders": {**_ADAPTED["train_encoders"], **({"cohort": {"columns": ["site"]}} if "cohort" in conditions else {})},
        "train_denoiser": {
            **_ADAPTED["train_denoiser"], "conditions": conditions,
            "drop": {"magnification": 0} | dict.fromkeys(conditions[1:], 0.3),
        },
        "plan": {"target": "none", "requests": requests, "batch_size": 32},
        "uplift": {
            "arms": [*BAR, "strong+synthetic", *TAKEN_OUT[question], "strong+synthetic-then-real"], "steps": 150, "batch_size": 16, "image_px": _SIDE,
            "learning_rate": [3e-4, 1e-4], "ratios": [0.25 if question == "rare" else 0.5], **_LEARNT,
        },
    }  # fmt: skip
    return Study(folder, params, [], {})


def _centre(path: Path) -> np.ndarray:
    picture = Image.open(path).convert("RGB")
    left, top = ((side - _SIDE) // 2 for side in picture.size)
    return np.asarray(picture.crop((left, top, left + _SIDE, top + _SIDE)))
