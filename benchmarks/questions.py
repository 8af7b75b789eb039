"""The three questions of `benchmarks.uplift`, each as studies on public sets, and what of each is named before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.inputs import real_data
from benchmarks.packaged import MODEL
from benchmarks.studies import Study
from histoloom.cli.recipe import merge
from histoloom.data.nuclei_sets import monuseg_slides, tnbc_slides

CLASSES = ("normal", "atypical")
TARGET = "HamamatsuXR"
"""The scanner that is tested on."""
BAR = ["real", "strong", "strong+ssl", "strong+retrieval"]
_SIDE, _MPP, _MADE = 64, 0.25, 200
_COMMON = {"seeds": 5, "pretraining": {"steps": 200, "batch_size": 32}}
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
    "emit": {"allow_unknown_ancestors": True},
}  # fmt: skip


class Question(NamedTuple):
    """One question.

    study : (root, fold, label fraction) to the study that answers it.
    fractions : of the labels; the claim is about the first.
    asked : the arm that the claim is about. others : arms that lack one of its ingredients, by what they lack.
    without : what is changed in params of studies that lack one, by what they lack; there the arm `asked` is tried alone.
    """

    study: Callable[[Path, int, float], Study]
    folds: int
    fractions: tuple[float, ...]
    asked: str
    others: dict[str, str]
    without: dict[str, dict[str, Any]]

    @property
    def arms(self) -> list[str]:
        return [*BAR, self.asked, *self.others.values()]


def rare(root: Path, _: int, fraction: float) -> Study:
    """All normal mitoses, and so many of the atypical ones, slide by slide in seeded order. Mitoses of TCGA lie in train without labels."""
    table = _mitoses()
    known = table["set"] == "AMi-Br"
    number = pd.Series(pd.factorize(table["slide_id"])[0], table.index) % 20
    test, val = number.isin([1, 3, 6, 8, 11, 13, 16, 18]), number.isin([4, 9, 14])
    table["split"] = np.where(known & test, "test", np.where(known & val, "val", "train"))
    scarce = table[known & (table["label"] == "atypical") & (table["split"] == "train")]
    slides = np.random.default_rng(0).permutation(scarce["slide_id"].unique())
    tiles = scarce.groupby("slide_id").size()[slides].cumsum()
    kept = {*slides[: 1 + int((tiles < fraction * len(scarce)).sum())]}
    table = table[~table.index.isin(scarce.index[~scarce["slide_id"].isin(kept)])].copy()
    table.loc[table["set"] != "AMi-Br", "label"] = ""
    in_normal = {"from": "tile", "strength": 0.8, "where": {"label": "normal"}}
    atypical = {"where": {"label": "atypical"}, "tiles": _MADE}
    requests = [
        request
        for number, label in enumerate(CLASSES)
        for request in (
            {"name": f"varied{number}", **atypical, "where": {"label": label}},
            {
                "name": f"noised{number}",
                **atypical,
                "where": {"label": label},
                "start": {"from": "tile", "strength": 0.5},
            },
        )
    ]
    requests.append({"name": "inpainted", **atypical, "remake": {"centre_um": 10.0}, "start": in_normal})
    return _of_mitoses(root / f"rare-{fraction:g}", table, ["magnification", "label", "image", "text"], requests, 0.25)


def scanner(root: Path, fold: int, fraction: float) -> Study:
    """All other scanners labelled. Of the target's slides one half lies in train without labels, and the other is tested on."""
    table = _mitoses()
    table = table[table["set"] == "AMi-Br"].reset_index(drop=True)
    target, number = table["site"] == TARGET, pd.Series(pd.factorize(table["slide_id"])[0], table.index)
    half = _dealt(table.loc[target, "slide_id"], 2).reindex(table["slide_id"]).to_numpy()
    table["split"] = np.where(target & (half == fold), "test", np.where(~target & (number % 6 == 5), "val", "train"))
    taught = ~target & (table["split"] == "train")
    order = np.random.default_rng(1).permutation(table.loc[taught, "slide_id"].unique())
    kept = {*order[: max(1, round(fraction * len(order)))]}
    table.loc[target & (half != fold) | taught & ~table["slide_id"].isin(kept), "label"] = ""
    swap = {"change": {"cohort": {"site": TARGET}}, "tiles": 300}
    inverted = {"from": "tile", "inverted": True}
    requests = [
        request
        for number, label in enumerate(CLASSES)
        for request in (
            {"name": f"swapped{number}", "where": {"label": label}, **swap},
            {"name": f"inverted{number}", "where": {"label": label}, "start": inverted, **swap},
            {"name": f"unswapped{number}", "where": {"label": label}, "tiles": 300},
        )
    ]  # fmt: skip
    conditions = ["magnification", "cohort", "label", "image", "text"]
    study = _of_mitoses(root / f"scanner-{fold}-{fraction:g}", table, conditions, requests, 0.5)
    merge(study.params, {"train_denoiser": _KNOWS_SCANNERS, "sample": {"guidance": _FOLLOWS_SCANNERS}})
    return study


def hospital(root: Path, fold: int, fraction: float, taught: str = "monuseg", asked: str = "tnbc") -> Study:
    """Nuclei of one set drawn, `taught`. Of the other set's patients, `asked`, one half lies in train without masks, and the other is tested on.

    The generator is trained here from nothing, since the packaged one saw half of tnbc's patients.
    """
    folder = root / f"{'hospital' if taught == 'monuseg' else 'hospital-reversed'}-{fold}-{fraction:g}"
    known, target = (_nuclei(folder, name) for name in (taught, asked))
    known["split"] = np.where(pd.factorize(known["patient_id"])[0] % 6 == 5, "val", "train")
    half = _dealt(target["patient_id"], 2)[target["patient_id"]].to_numpy()
    target["split"] = np.where(half == fold, "test", "train")
    target.loc[target["split"] == "train", _DRAWN[asked]] = None
    order = np.random.default_rng(1).permutation(known.loc[known["split"] == "train", "patient_id"].unique())
    kept = {*order[: max(2, round(fraction * len(order)))]}
    known.loc[(known["split"] == "train") & ~known["patient_id"].isin(kept), _DRAWN[taught]] = None
    slides = pd.concat([known, target], ignore_index=True).fillna("").to_dict("records")
    drawn = {"tiles": 400, "where": {"contains": {"nucleus": 0.1}}}
    swap = {"cohort": {"site": asked}}
    params = {
        "tile": {
            "mpp": 0.5, "tile_px": 32, "stride_px": 32, "tissue": {"mpp": 4.0, "min_fraction": 0.1, "min_area_um2": 100},
            "labels": {"source": "none", "classes": [], "unlabelled": "keep"}, "masks": {"source": "raster", "classes": ["nucleus"]},
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
                {"name": "real-masks", **drawn, "change": swap},
                {"name": "unswapped", **drawn},
            ],
        },
        "sample": {"scheduler": "ddim", "steps": 20, "guidance": 1.5},
        "train_filters": {"segmenter_steps": 400},
        "filter": {"use": ["quality", "mask", "near_copy"]},
        "uplift": {"task": "mask", "steps": 400, "batch_size": 8, "learning_rate": [2e-3, 5e-4], "ratios": [0.25], **_COMMON},
    }  # fmt: skip
    return Study(folder, params, slides, {})


_DRAWN = {"monuseg": "instances", "tnbc": "mask"}
"""Column of slides.csv that names what was drawn in a set."""


def _nuclei(folder: Path, name: str) -> pd.DataFrame:
    slides, others = {"monuseg": (monuseg_slides, "organ"), "tnbc": (tnbc_slides, "covered")}[name]
    return slides(folder, real_data() / name).assign(site=name).drop(columns=others)


_NO_POOL = {"tile": {"labels": {"unlabelled": "drop"}}}
_NO_EMBEDDING = {"sample": {"guidance": {"label": 1.5, "image": 0.0}}}
_RARE = "noised0-of-noised1-of-inpainted"
_INVERTED = "inverted0-of-inverted1"
"""Asked rather than `swapped`, since their colours lie nearer to the target's: decided before a learner's result was read."""
_KNOWS_SCANNERS = {"steps": 1600, "drop": {"image": 0.5}}
"""With 400 steps, swapped tiles had the colours of the scanner that they came from: a cohort is a condition that the packaged model doesn't have."""
_FOLLOWS_SCANNERS = {"cohort": 3.0, "label": 1.5, "image": 0.5, "text": 1.0}
"""Chosen by the colours of swapped tiles beside the target's unlabelled ones, before a learner was trained."""
_WITHOUT_OF_MASKS = {
    "realism_filter": "strong+unfiltered-of-real-masks",
    "targeting": "strong+synthetic-of-unswapped",
    "mixing": "strong+synthetic-then-real-of-real-masks",
}
QUESTIONS = {
    "rare": Question(
        rare, 1, (0.05, 0.02, 0.1, 1.0), f"strong+synthetic-of-{_RARE}",
        {
            "realism_filter": f"strong+unfiltered-of-{_RARE}", "inpainting": "strong+synthetic-of-noised0-of-noised1",
            "targeting": "strong+synthetic-of-noised0", "noised_start": "strong+synthetic-of-varied0-of-varied1",
            "mixing": f"strong+synthetic-then-real-of-{_RARE}",
        },
        {"unlabelled_pool": _NO_POOL, "embedding": _NO_EMBEDDING},
    ),
    "scanner": Question(
        scanner, 2, (1.0,), f"strong+synthetic-of-{_INVERTED}",
        {
            "realism_filter": f"strong+unfiltered-of-{_INVERTED}", "targeting": "strong+synthetic-of-unswapped0-of-unswapped1",
            "inversion": "strong+synthetic-of-swapped0-of-swapped1", "mixing": f"strong+synthetic-then-real-of-{_INVERTED}",
        },
        {"embedding": {"sample": {"guidance": _FOLLOWS_SCANNERS | {"image": 0.0}}}},
    ),
    "hospital": Question(
        hospital, 2, (1.0, 0.1), "strong+synthetic-of-real-masks",
        _WITHOUT_OF_MASKS,
        {},
    ),
    "hospital_reversed": Question(
        partial(hospital, taught="tnbc", asked="monuseg"), 2, (1.0,), "strong+synthetic-of-real-masks",
        _WITHOUT_OF_MASKS,
        {},
    ),
}  # fmt: skip


def study_of(name: str, root: Path, fold: int, fraction: float) -> Study:
    """The study of a question, with the arms that it compares."""
    question = QUESTIONS[name]
    study = question.study(root, fold, fraction)
    study.params["uplift"] |= {"arms": question.arms, "asked": question.asked}
    return study


def _mitoses() -> pd.DataFrame:
    """Path, set, label, slide_id and site of each mitosis; one without a slide is a slide of its own."""
    table = pd.read_csv(real_data() / "mitoses/tiles.csv").rename(columns={"domain": "site"})
    table = table.sort_values(["set", "site", "slide_id", "path"]).reset_index(drop=True)
    lone = pd.Series([f"{site}-{n}" for n, site in enumerate(table["site"])])
    table["slide_id"] = table["slide_id"].fillna(lone).str.replace(r"[^A-Za-z0-9]+", "-", regex=True)
    return table


def _dealt(names: pd.Series, parts: int) -> pd.Series:
    """Each name's part, in seeded order."""
    order = np.random.default_rng(0).permutation(sorted(names.unique()))
    return pd.Series(np.arange(len(order)) % parts, index=order)


def _of_mitoses(folder: Path, table: pd.DataFrame, conditions: list[str], requests: list[dict], ratio: float) -> Study:
    if not (folder / "data/mitoses.npz").exists():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        images = np.stack([_centre(real_data() / "mitoses" / path) for path in table["path"]])
        columns = {name: table[name].to_numpy(str) for name in ("label", "slide_id", "split", "site")}
        np.savez(folder / "data/mitoses.npz", images=images, **columns)
    inverts = any("inverted" in request.get("start", {}) for request in requests)
    params: dict[str, Any] = {
        "tile": {
            "manifest": None, "mpp": _MPP, "tile_px": _SIDE, "stride_px": _SIDE, "tissue": {"leave_out": []}, "caption": "H&E of breast",
            "labels": {"source": "slide", "classes": list(CLASSES), "unlabelled": "keep"},
            "sets": [{"path": "data/mitoses.npz", "name": "mitosis", "mpp": _MPP}],
        },
        **_ADAPTED,
        "train_denoiser": {
            **_ADAPTED["train_denoiser"], "conditions": conditions, "drop": {"magnification": 0} | dict.fromkeys(conditions[1:], 0.3),
        },
        "plan": {"target": "none", "requests": requests, "batch_size": 32},
        "uplift": {
            "steps": 150, "batch_size": 16, "image_px": _SIDE, "learning_rate": [3e-4, 1e-4], "ratios": [ratio], **_COMMON,
        },
    }  # fmt: skip
    if inverts:
        params["sample"] = {**params["sample"], "scheduler": "ddim"}
    if "cohort" in conditions:
        params["train_encoders"] = {**params["train_encoders"], "cohort": {"columns": ["site"]}}
    return Study(folder, params, [], {})


def _centre(path: Path) -> np.ndarray:
    picture = Image.open(path).convert("RGB")
    left, top = ((side - _SIDE) // 2 for side in picture.size)
    return np.asarray(picture.crop((left, top, left + _SIDE, top + _SIDE)))
