"""Whether synthetic tiles help on real data, by the stages that a user runs, and whether filtering them does.

`nuclei`: monuseg, thirty patients, each held out once in three folds. A U-Net learns nuclei from real tiles and from tiles made under
their masks, and under scattered ones, by the packaged model adapted to the train patients. `unlabelled`: the same at a tenth of the
labels, the generator adapted to the tiles of the other train patients too, whose masks it doesn't see. `spots`: her2st, one patient,
section C5 held out. A classifier learns what a spot is annotated as, and the denoiser is trained here, since the packaged one
has seen all labels. At a label fraction below 1 nothing sees the other labels: neither generator nor encoders nor filters.
In full it needs the real data that HISTOLOOM_REAL_DATA names; with --smoke it draws slides of its own, and its figures mean
nothing.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from benchmarks.folds import CHANGE, measured, named, over, predicted, together
from benchmarks.inputs import drawn_slides, her2st_rows, real_data
from benchmarks.packaged import MODEL
from benchmarks.run import arguments, flat, report
from benchmarks.studies import Study
from histoloom.cli.recipe import merge

FRACTIONS = {"nuclei": (0.1, 1.0), "unlabelled": (0.1,), "spots": (0.1, 1.0)}
PARTS = tuple(FRACTIONS)
FOLDS = 3
VAL_EVERY = 6
STAGES = (
    "tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample", "sample_slides",
    "tile_slides", "train_filters", "filter", "uplift",
)  # fmt: skip
ARMS = ["real", "real+classical", "real+synthetic", "real+synthetic+classical", "real+unfiltered", "synthetic"]
AUTOENCODER = {
    "init": MODEL, "crop_px": 64, "detail_weight": 0.25, "perceptual_weight": 0.1, "batch_size": 4,
    "learning_rate": 5e-4, "mixed_precision": "bf16",
}  # fmt: skip
SAMPLE = {"steps": 20, "guidance": 1.5, "precision": "bf16"}


def folds(table: pd.DataFrame) -> list[dict[str, str]]:
    """Patient to split, a fold after the other: each patient is tested on once, organs spread over the folds."""
    patients = table.sort_values(["organ", "patient_id"])["patient_id"].tolist()
    out = []
    for fold in range(FOLDS):
        rest = [p for n, p in enumerate(patients) if n % FOLDS != fold]
        val = set(rest[fold::VAL_EVERY])
        out.append({p: "test" if p not in rest else "val" if p in val else "train" for p in patients})
    return out


def nuclei(root: Path, fold: int, fraction: float, name: str = "nuclei") -> Study:
    data = real_data() / "monuseg"
    table = pd.read_csv(data / "images.csv")
    splits = folds(table)[fold]
    rows = [
        {
            "slide_id": Path(row.image).stem, "path": row.image, "patient_id": row.patient_id, "mpp": row.mpp,
            "instances": row.instances, "split": splits[row.patient_id],
        }
        for row in table.itertuples()
    ]  # fmt: skip
    tiles = 900 if fraction == 1 else 400
    params = {
        "tile": {
            "slides_root": str(data), "mpp": 0.69, "tile_px": 96, "stride_px": 48,
            "tissue": {"mpp": 4.0, "min_fraction": 0.3},
            "labels": {
                "source": "none", "classes": [], "fraction": fraction, "fraction_of": "patient",
                "unlabelled": "keep" if name == "unlabelled" else "drop",
            },
            "masks": {"source": "raster", "classes": ["nucleus"]},
            "caption": "H&E",
        },
        "train_encoders": {"text": {"source": MODEL}},
        "train_autoencoder": AUTOENCODER | {"steps": 400},
        "encode": {"batch_size": 4, "symmetries": "turns", "mask_detail": 2, "precision": "bf16"},
        "train_denoiser": {
            "init": MODEL, "conditions": ["magnification", "text", "mask"], "drop": {"magnification": 0, "text": 0.5, "mask": 0.1}, "steps": 400, "batch_size": 32,
            "learning_rate": 5e-4, "ema_decay": 0.99, "mixed_precision": "bf16",
        },
        "plan": {
            "target": "none",
            "requests": [
                {"name": "as-they-are", "tiles": tiles // 2},
                {"name": "scattered", "tiles": tiles // 2, "change": {"mask": {"scatter": True}}},
            ],
        },
        "sample": SAMPLE | {"guidance_interval": [0.2, 0.6]},  # the mask's, for a caption that is everyone's too
        "train_filters": {"segmenter_steps": 400},
        "filter": {"use": ["quality", "mask", "near_copy"]},
        "uplift": {
            "task": "mask", "arms": ARMS, "ratios": [1.0] if fraction == 1 else [1.0, 4.0], "seeds": 3, "steps": 300,
            "batch_size": 8,
        },
    }  # fmt: skip
    return Study(root / f"{name}-{fold}-{fraction:g}", params, rows, {})


def spots(root: Path, _: int, fraction: float) -> Study:
    data = real_data() / "her2st"
    rows = [row | {"split": {"C4": "val", "C5": "test"}.get(row["slide_id"], "train")} for row in her2st_rows()]
    params = {
        "tile": {
            "slides_root": str(data / "slides"), "spots": "manifests/spots.csv", "mpp": 1.38, "tile_px": 64, "stride_px": 64,
            "tissue": {"mpp": 11.0, "min_fraction": 0.6},
            "labels": {
                "source": "spots", "classes": ["cancer", "immune", "other"], "spot_radius_um": 60, "unlabelled": "keep",
                "fraction": fraction,
            },
            "split": {"group": "slide"},
            "caption": "H&E of breast",
        },
        "train_autoencoder": AUTOENCODER | {"steps": 400},
        "encode": {"batch_size": 4, "symmetries": "flips", "precision": "bf16"},
        "train_denoiser": {
            "conditions": ["label"], "drop": {"label": 0.1}, "channels": [96, 160], "steps": 1200, "batch_size": 32,
            "learning_rate": 1e-3, "ema_decay": 0.998, "mixed_precision": "bf16",
        },
        "plan": {"target": 900, "max_per_class": 900, "overdraw": 1.3},
        "sample": SAMPLE,
        "filter": {"use": ["quality", "distance", "label", "near_copy"]},
        "uplift": {"arms": ARMS, "seeds": 5, "steps": 150, "batch_size": 16, "image_px": 64},
    }  # fmt: skip
    return Study(root / f"spots-{fraction:g}", params, rows, {"manifests/spots.csv": data / "spots.csv"})


def drawn(root: Path, name: str, fold: int, fraction: float) -> Study:
    """A tiny study of either kind, its slides drawn here."""
    rows, tile = drawn_slides(root)
    for row in rows:
        row["split"] = ("train", "train", "train", "train", "val", "test")[(int(row["slide_id"][1:]) + 2 * fold) % 6]
    small = {
        "train_autoencoder": {"channels": 16, "down_factor": 4, "steps": 6, "batch_size": 8},
        "train_denoiser": {"channels": [16, 32], "steps": 6, "batch_size": 8},
        "plan": {"target": "none", "requests": [{"name": "more", "tiles": 24}]},
        "sample": {"steps": 2},
        "train_filters": {"segmenter_steps": 4},
        "filter": {"use": [], "min_yield": 0},
        "uplift": {"arms": ["real", "real+synthetic", "real+unfiltered"], "seeds": 2, "steps": 2, "image_px": 32},
    }
    if name != "spots":
        tile |= {"masks": {"source": "raster", "classes": ["nucleus"]}}
        merge(small, {"train_denoiser": {"conditions": ["mask"]}, "uplift": {"task": "mask"}})
    else:
        rows = [{k: v for k, v in row.items() if k != "instances"} for row in rows]
        merge(small, {"train_denoiser": {"conditions": ["label"]}})
    kept = "keep" if name == "unlabelled" else "drop"
    merge(tile, {"labels": {"fraction": fraction, "fraction_of": "tile", "unlabelled": kept}})
    return Study(root / f"{name}-{fold}-{fraction:g}", {"tile": tile} | small, rows, {}, 0)


def keys_of(found: dict, studies: list[Study]) -> dict:
    measure, out = found["primary_measure"], {}
    for arm in found["arms"]:
        name = named(arm["arm"], arm["ratio"])
        out[name] = {"mean": arm[measure], "std_of_seeds": arm[f"{measure}_std_of_seeds"]}
        out[name] |= {key: arm[key] for key in CHANGE if key in arm}
        trained = [trained_on(study, arm) for study in studies]
        out[name] |= {kind: sum(t[kind] for t in trained) for kind in ("real", "synthetic")}
    for contrast in ("filtering", "gain"):
        for change in found.get(contrast, []):
            name = named(contrast, change["ratio"])
            out[name] = {key: change[key] for key in CHANGE}
    augment = [measured(study, "filter")["augment"] for study in studies]
    out["accepted_of_synthetic"] = sum(a["accepted"] for a in augment) / sum(a["synthetic"] for a in augment)
    fitted = [measured(study, "train_filters") for study in studies]
    for name in (name for name, value in fitted[0].items() if isinstance(value, dict)):
        rejected = [m[name]["false_rejection_of_test"] for m in fitted]
        out.setdefault("false_rejection_of_test", {})[name] = {
            "mean": float(np.mean(rejected)),
            "worst_fold": max(rejected),
        }
    return out | {key: found[key] for key in ("test_groups", "test_tiles", "comparisons")}


def trained_on(study: Study, arm: dict) -> dict[str, int]:
    """How many tiles of each kind an arm was trained on in one fold."""
    found = measured(study, "uplift")
    return next(a["trained_on"] for a in found["arms"] if (a["arm"], a["ratio"]) == (arm["arm"], arm["ratio"]))


def drawn_differences(found: dict[str, dict], words: str) -> Figure:
    """Each arm's difference from real tiles alone, with its interval and, thinly, that of all; a panel for each label fraction."""
    figure = Figure(figsize=(4.8 * len(found), 3.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, len(found), sharex=True))
    for axis, (fraction, result) in zip(axes, found.items()):
        arms = [arm for arm in result["arms"] if "difference" in arm][::-1]
        for place, arm in enumerate(arms):
            low, high = (100 * v for v in arm["interval"])
            colour = "#2f7d5b" if low > 0 else "#a03030" if high < 0 else "#6d6274"
            axis.plot([low, high], [place, place], color=colour, lw=3)
            axis.plot([100 * v for v in arm["interval_of_all"]], [place, place], color=colour, lw=1)
            axis.plot(100 * arm["difference"], place, "o", color=colour)
        axis.axvline(0, color="#2b2033", lw=0.8)
        names = [arm["arm"] + ("" if arm["ratio"] == 1 else f", {arm['ratio']:g} to 1") for arm in arms]
        axis.set_yticks(range(len(arms)), names)
        axis.set_title(f"{fraction} of the labels", fontsize=10)
        axis.set_xlabel(f"{words}, points over 'real'", fontsize=9)
    return figure


def main() -> None:
    options = arguments(
        __doc__, PARTS, work="keep the studies here, so that a broken run goes on where it stopped",
        pictures="write plots here",
    )  # fmt: skip
    keys, minutes, all_folds = {}, {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)).absolute()
        for name in options.only:
            found = {}
            for fraction in FRACTIONS[name]:
                fraction = 0.5 if options.smoke and fraction < 1 else fraction  # of a few drawn slides
                start, studies = time.monotonic(), []
                for fold in range(1 if name == "spots" else 2 if options.smoke else FOLDS):
                    make = spots if name == "spots" else partial(nuclei, name=name)
                    study = drawn(root, name, fold, fraction) if options.smoke else make(root, fold, fraction)
                    study.run(*STAGES)
                    studies.append(study)
                all_folds[name, fraction] = predicted(studies)
                found[f"{100 * fraction:g} %"] = together(all_folds[name, fraction])
                keys.setdefault(name, {})[f"fraction{fraction:g}"] = keys_of(found[f"{100 * fraction:g} %"], studies)
                minutes[f"minutes_{name}_fraction{fraction:g}"] = (time.monotonic() - start) / 60
            if options.pictures is not None:
                options.pictures.mkdir(parents=True, exist_ok=True)
                words = "balanced accuracy" if name == "spots" else "Dice"
                drawn_differences(found, words).savefig(options.pictures / f"{name}.png", dpi=110)
    for name, fraction in all_folds:
        if name == "unlabelled" and ("nuclei", fraction) in all_folds:
            compared = over(all_folds["nuclei", fraction], all_folds[name, fraction])
            keys[name][f"fraction{fraction:g}"]["over_nuclei"] = compared
    report("uplift", options.smoke, {"folds": FOLDS, "arms": ARMS}, flat(keys), minutes, options.json)


if __name__ == "__main__":
    main()
