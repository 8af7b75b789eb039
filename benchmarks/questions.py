"""The three questions of `benchmarks.uplift`, each as studies on public sets, and what of each is named before anything is measured."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from benchmarks.hospitals import FOLLOWS, hospital
from benchmarks.inputs import dealt, real_data
from benchmarks.packaged import ADAPTED
from benchmarks.studies import Study
from histoloom.cli.recipe import merge

CLASSES = ("normal", "atypical")
TARGET = "HamamatsuXR"
"""The scanner that is tested on."""
BAR = ["real", "strong", "strong+ssl", "strong+retrieval"]
_SIDE, _MPP, _MADE = 64, 0.25, 200
_COMMON = {"seeds": 5, "pretraining": {"steps": 200, "batch_size": 32}}


class Question(NamedTuple):
    """One question.

    study : (root, fold, label fraction) to the study that answers it.
    fractions : of the labels; the claim is about the first.
    asked : the arm that the claim is about. others : arms that lack one of its ingredients, by what they lack.
    without : what is changed in params of studies that lack one, by what they lack; there the arm `asked` is tried beside `real` alone.
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
    requests = [
        {"name": f"{name}{number}", "where": {"label": label}, "tiles": _MADE, **how}
        for number, label in enumerate(CLASSES)
        for name, how in (
            ("varied", {}),
            ("noised", {"start": {"from": "tile", "strength": 0.5}}),
            ("inpainted", {"remake": _FIGURE, "start": in_normal}),
        )
    ]
    return _of_mitoses(root / f"rare-{fraction:g}", table, ["magnification", "label", "image", "text"], requests, 0.25)


def scanner(root: Path, fold: int, fraction: float) -> Study:
    """All other scanners labelled. Of the target's slides one half lies in train without labels, and the other is tested on."""
    table = _mitoses()
    table = table[table["set"] == "AMi-Br"].reset_index(drop=True)
    target, number = table["site"] == TARGET, pd.Series(pd.factorize(table["slide_id"])[0], table.index)
    half = dealt(table.loc[target, "slide_id"], 2).reindex(table["slide_id"]).to_numpy()
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


_FIGURE = {"centre_um": 10.0, "grow_um": 1.0, "blend_um": 1.0}
"""Unblended, a disc had a rim. Only atypical tiles had one, since no normal figure was inpainted: seen when results of that recipe had been read."""
_NO_POOL = {"tile": {"labels": {"unlabelled": "drop"}}}
_NO_EMBEDDING = {"sample": {"guidance": {"label": 1.5, "image": 0.0}}}
_RARE = "noised0-of-noised1-of-inpainted0-of-inpainted1"
_INVERTED = "inverted0-of-inverted1"
"""Asked rather than `swapped`, since their colours lie nearer to the target's: decided before a learner's result was read."""
_KNOWS_SCANNERS = {"steps": 1600, "drop": {"image": 0.5}}
"""With 400 steps, swapped tiles had the colours of the scanner that they came from: a cohort is a condition that the packaged model doesn't have."""
_FOLLOWS_SCANNERS = {"cohort": 3.0, "label": 1.5, "image": 0.5, "text": 1.0}
"""Chosen by the colours of swapped tiles beside the target's unlabelled ones, before a learner was trained."""
_OF_MASKS = "strong+synthetic-of-real-masks-of-predicted-masks"
"""Named after a trial on TNBC, whose four test patients had been seen. On MoNuSeg it was measured once, without a trial."""
_WITHOUT_OF_MASKS = {
    "drawn_masks": "strong+synthetic-of-predicted-masks",
    "predicted_masks": "strong+synthetic-of-real-masks",
    "targeting": "strong+synthetic-of-unswapped",
}
_LESS_OF_MASKS = {
    "embedding": {"sample": {"guidance": FOLLOWS | {"image": 0.0}}},
    "ratio": {"uplift": {"ratios": [0.25]}},
}
QUESTIONS = {
    "rare": Question(
        rare, 1, (0.05, 0.02, 0.1, 1.0), f"strong+synthetic-of-{_RARE}",
        {
            "realism_filter": f"strong+unfiltered-of-{_RARE}", "inpainting": "strong+synthetic-of-noised0-of-noised1",
            "targeting": "strong+synthetic-of-noised0-of-inpainted0", "noised_start": "strong+synthetic-of-varied0-of-varied1",
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
        partial(hospital, uplift=_COMMON), 2, (1.0,), _OF_MASKS,
        _WITHOUT_OF_MASKS,
        _LESS_OF_MASKS,
    ),
    "hospital_reversed": Question(
        partial(hospital, uplift=_COMMON, taught="tnbc", asked="monuseg"), 2, (1.0,), _OF_MASKS,
        _WITHOUT_OF_MASKS,
        _LESS_OF_MASKS,
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
        **ADAPTED,
        "train_denoiser": {
            **ADAPTED["train_denoiser"], "conditions": conditions, "drop": {"magnification": 0} | dict.fromkeys(conditions[1:], 0.3),
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
