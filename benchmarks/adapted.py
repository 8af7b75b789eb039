"""The demo's adaptation to skin, begun from the packaged model, and with --small from the one before it, at equal steps.

Tiles are sampled under the conditions of the demo's test region, from noise, and compared with its tiles through EfficientNet-Lite2, which
nothing else uses. `excess.skin` is KID less its floor, the KID of halves of the region's tiles. `make demo` must have fetched the slide.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.packaged import MODEL, demo_params, from_history, specs_of
from benchmarks.run import chip, flat, report
from benchmarks.studies import Study
from histoloom.cli.recipe import merge
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config.extractors import JUDGE
from histoloom.config.package import autoencoder_facts, packaged
from histoloom.data.rows import held_out_rows
from histoloom.quality.kid import kid
from histoloom.report.pictures import contact_sheet

ROOT = Path(__file__).parents[1]
_SUBSETS = 50


def adapted(root: Path, name: str, model: str, tiles: int) -> Study:
    """The demo's study from this package, trained, with so many tiles to evaluate in its plan."""
    params = demo_params()
    known = {spec.name for spec in specs_of(model)}
    conditions = [condition for condition in params["train_denoiser"]["conditions"] if condition in known]
    drop = {condition: params["train_denoiser"]["drop"][condition] for condition in conditions}
    down_factor = autoencoder_facts(Path(packaged(model, "autoencoder")))["down_factor"]
    merge(
        params,
        {
            "tile": {"slides_root": str(ROOT / "data/slides")},
            "train_encoders": {"text": {"source": model}},
            "train_autoencoder": {"init": model, "down_factor": down_factor},
            "train_denoiser": {"init": model, "conditions": conditions, "drop": None},
            "plan": {"requests": [], "evaluation_tiles": tiles},
            "sample_slides": {"slides": [], "guidance": 1.5},
        },
    )
    params["train_denoiser"]["drop"] = drop
    slides = pd.read_csv(ROOT / "manifests/slides.csv").to_dict("records")
    files = {str(path.relative_to(ROOT)): path for path in (ROOT / "manifests").rglob("*.*json")}
    study = Study(root / name, params, slides, files)
    study.train()
    return study


def excess(study: Study, images: np.ndarray) -> float:
    tower, rows = load_extractor(JUDGE, chip()), held_out_rows(study.tiles.rows())
    real = tower.features(study.tiles.read(rows))
    floor = kid(real[::2], real[1::2], _SUBSETS, 0)["mean"]
    return kid(tower.features(images), real, _SUBSETS, 0)["mean"] - floor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    small = "also from histoloom-small, the package before it, read from git's history"
    parser.add_argument("--small", action="store_true", help=small)
    parser.add_argument("--samples", type=int, default=400, help="of each model")
    parser.add_argument(
        "--work", type=Path, help="keep the studies here, so that a broken run goes on where it stopped"
    )
    parser.add_argument("--pictures", type=Path, help="write a sheet of each model's tiles here")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)).absolute()
        models = {"base": MODEL} | ({"small": str(from_history("histoloom-small", root))} if options.small else {})
        for name, model in models.items():
            study = adapted(root, name, model, options.samples)
            images = study.sample("skin", study.params["sample"]["guidance"])
            found[name] = excess(study, images)
            if options.pictures is not None:
                options.pictures.mkdir(parents=True, exist_ok=True)
                pick = np.linspace(0, len(images) - 1, 16).astype(int)
                pair = np.concatenate([study.tiles.read(study.sources().iloc[pick]), images[pick]])
                contact_sheet(pair, columns=len(pick)).save(options.pictures / f"skin-{name}.png")
    report("adapted", False, {"samples": options.samples}, flat({"excess": {"skin": found}}), {}, options.json)


if __name__ == "__main__":
    main()
