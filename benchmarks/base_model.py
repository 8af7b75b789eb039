"""The packaged model on groups that it never saw; with --small beside histoloom-small, the package of one patient before it.

The held-out groups are those that the base model's card names: four slides of camelyon16, four patients of tnbc, and section C5 of her2st.
Samples are made under the conditions of their tiles and compared with them through EfficientNet-Lite2, which nothing else uses. `excess` is
KID less its floor, the KID of halves of the same tiles, groups apart where there are several. It needs the real data that HISTOLOOM_REAL_DATA
names. A broken run goes on where it stopped (--work).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.base_pictures import SLIDE_PX, write_pictures
from benchmarks.base_study import lay_out
from benchmarks.packaged import MODEL, Packaged, as_packaged, from_history
from benchmarks.run import chip, flat, report
from benchmarks.studies import Study
from histoloom.backbones.denoiser import load_denoiser, save_denoiser
from histoloom.backbones.few_steps import with_few_steps
from histoloom.backbones.precision import autocast_type, native
from histoloom.cli.recipe import merge
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config import TrainFilters
from histoloom.config.base import Precision
from histoloom.config.load import load_params
from histoloom.data.commit import replace_tree
from histoloom.data.lineage import FILE as LINEAGE
from histoloom.data.rows import held_out_rows, spread, train_rows
from histoloom.errors import HistoloomError
from histoloom.quality.copy_search import build_index, copy_scores
from histoloom.quality.filters.near_copy import CopyFilter
from histoloom.quality.kid import kid
from histoloom.quality.realism import Sample as Tiles
from histoloom.quality.realism import ToldApart, told_apart
from histoloom.report.pictures import contact_sheet
from histoloom.targets.latents import Latents
from histoloom.training.reconstruction import reconstruction

PARTS = ("rebuilt", "excess", "few_steps", "precisions", "copies")
STEPS, FEW = 20, 4
FEW_STEPS = {"train_denoiser": {"few_steps": True}, "sample": {"scheduler": "ddim", "steps": FEW, "guidance": 1.0}}
_MOST_REAL = 4000
_BLOCK_PX = 8


class Judge(NamedTuple):
    """Held-out tiles by domain: rows, and their features."""

    rows: pd.DataFrame
    features: np.ndarray

    def domain(self, name: str) -> np.ndarray:
        return self.features[(self.rows["dataset"] == name).to_numpy()]

    def floor(self, name: str) -> float:
        """KID of halves, of whole groups where there are at least four."""
        rows = self.rows[self.rows["dataset"] == name]
        groups = rows["split_group"].to_numpy(str)
        names = np.unique(groups)
        first = np.isin(groups, names[::2]) if len(names) >= 4 else np.arange(len(groups)) % 2 == 0
        features = self.domain(name)
        return kid(features[first], features[~first], 50, 0)["mean"]

    @property
    def domains(self) -> list[str]:
        return sorted(self.rows["dataset"].unique())


def judge_of(study: Study) -> Judge:
    rows = spread(held_out_rows(study.tiles.rows()), _MOST_REAL).reset_index(drop=True)
    return Judge(rows, _tower().features(study.tiles.read(rows)))


def _tower():
    return load_extractor("efficientnet-lite2", chip())


def measure_rebuilt(study: Study, judge: Judge, name: str) -> dict:
    """PSNR and KID of held-out tiles that the autoencoder gives back: what no sample can better."""
    target, out = Latents.load(study.folder / "models/autoencoder", chip()), {}
    for domain in judge.domains:
        rows = spread(judge.rows[judge.rows["dataset"] == domain], 800)
        found, rebuilt = reconstruction(target, {"image": study.tiles.read(rows)})
        features = judge.domain(domain)
        out[domain] = {
            "psnr_db": {name: found["psnr_db"]},
            "rebuilt_kid": {name: kid(_tower().features(rebuilt["image"]), features, 50, 0)["mean"]},
        }
    for mpp, rows in judge.rows.groupby("mpp"):
        tiles = study.tiles.read(spread(rows.reset_index(drop=True), 400))
        out[f"{mpp:g}"] = {"psnr_db": {name: reconstruction(target, {"image": tiles})[0]["psnr_db"]}}
    return {"rebuilt": out}


def sampled(study: Study, steps: int, *, embedded: bool = True, **sample: object) -> np.ndarray:
    """The plan's tiles; without the embedding of the tile whose conditions are given where `embedded` says so."""
    stated, before = {**study.params["sample"], "steps": steps, **sample}, study.params
    study.params = {**before, "sample": stated}
    guidance = stated["guidance"]
    if not embedded:
        guidance = {name: 0.0 if name == "image" else guidance for name in before["train_denoiser"]["conditions"]}
    images = study.sample(f"steps{steps}", guidance)
    study.params = before
    return images


def excesses(study: Study, judge: Judge, features: np.ndarray) -> dict[str, float]:
    """Of each domain: KID of the samples made under its tiles' conditions to its tiles, less the floor."""
    of = study.sources()["dataset"].to_numpy(str)
    return {d: kid(features[of == d], judge.domain(d), 50, 0)["mean"] - judge.floor(d) for d in judge.domains}


def told_from_real(study: Study, judge: Judge, features: np.ndarray) -> dict[str, dict[str, ToldApart]]:
    """Of each domain: how easily samples, and beside them real train tiles, are told from held-out tiles."""
    sources, train = study.sources(), spread(train_rows(study.tiles), _MOST_REAL // 4).reset_index(drop=True)
    own, found = _tower().features(study.tiles.read(train)), {}
    for domain in judge.domains:
        real = _tiles(judge.rows, judge.features, domain)
        others = {"samples": (sources, features), "floor": (train, own)}
        found[domain] = {name: told_apart(real, _tiles(*of, domain), 0) for name, of in others.items()}
    return found


def _tiles(rows: pd.DataFrame, features: np.ndarray, domain: str) -> Tiles:
    mine = (rows["dataset"] == domain).to_numpy()
    return Tiles(features[mine], *(rows.loc[mine, key].to_numpy(str) for key in ("tile_id", "split_group")))


def measure_few_steps(study: Study, judge: Judge) -> dict:
    """Excess of the package's few steps, beside twenty; their ratio where twenty are further than the floor."""
    few = study.copied(f"{study.folder.name}-few", FEW_STEPS)
    _add_few_steps(few.folder / "models/denoiser")
    many, less = (excesses(of, judge, _tower().features(sampled(of, n))) for of, n in ((study, STEPS), (few, FEW)))
    return {"steps4": less, "steps20": many, "steps4_over_steps20": {d: less[d] / many[d] for d in many if many[d] > 0}}


def measure_precisions(study: Study, judge: Judge) -> dict:
    """Excess in each precision that this machine computes, and how far each tile is from the same one in fp32."""
    kinds = [kind for kind in get_args(Precision) if _computes(kind)]
    images = {kind: sampled(study, STEPS, precision=kind) for kind in kinds}
    apart = {kind: np.sqrt(np.square(made.astype(np.float32) - images["fp32"]).mean()) for kind, made in images.items()}
    return {
        "precision_excess": {kind: excesses(study, judge, _tower().features(made)) for kind, made in images.items()},
        "rgb_from_fp32": {kind: float(apart[kind]) for kind in kinds if kind != "fp32"},
    }


def _computes(kind: str) -> bool:
    try:
        autocast_type(kind, chip())
    except HistoloomError:
        return False
    return native(kind, chip()) == kind


def _add_few_steps(denoiser: Path) -> None:
    """As `train_denoiser` does it with `few_steps: true` and `steps: 0`, which would need encoded tiles."""
    network, record = load_denoiser(denoiser, "cpu")
    if record.training.distilled:
        return  # by a run that was broken off
    joined = denoiser.with_name("joined")
    shutil.rmtree(joined, ignore_errors=True)
    save_denoiser(network, with_few_steps(network, record, denoiser), joined)
    for name in ("scheduler_config.json", LINEAGE):
        shutil.copy(denoiser / name, joined)
    replace_tree(joined, denoiser)


def blockiness(images: np.ndarray) -> float:
    """How much larger steps between neighbouring pixels are at the edges of JPEG's blocks than elsewhere; 0 where there are none.

    images : (n, h, w, 3) uint8, whose blocks begin at the same place.
    """
    grey = images.astype(np.float32).mean(3)
    steps = [np.abs(np.diff(grey, axis=axis)).mean((0, 3 - axis)) for axis in (1, 2)]
    by_phase = np.array([[of[phase::_BLOCK_PX].mean() for phase in range(_BLOCK_PX)] for of in steps])
    return float((by_phase.max(1) / np.median(by_phase, 1)).mean() - 1)


def measure_blocks(study: Study, images: np.ndarray) -> dict:
    """Of each domain, at its finest scale: the others were resampled."""
    rows, found = study.sources(), {}
    for domain, of in rows.groupby("dataset"):
        fine = ((rows["dataset"] == domain) & (rows["mpp"] == of["mpp"].min())).to_numpy()
        found[domain] = {"real": blockiness(study.tiles.read(rows[fine])), "samples": blockiness(images[fine])}
    return {"blockiness": found}


def measure_copies(study: Study, pictures: Path | None) -> dict:
    """Share of samples that the near-copy filter flags, less that of real held-out tiles, others than its threshold was set on."""
    rows = train_rows(study.tiles)
    images = study.tiles.read(rows)
    copies = CopyFilter(build_index(rows["tile_id"].to_numpy(str), [images]))
    made = sampled(study, STEPS)
    held_out = spread(held_out_rows(study.tiles.rows()), 2 * len(made))
    known, unseen = (copy_scores(study.tiles.read(part), copies.index)[0] for part in (held_out[::2], held_out[1::2]))
    scores, nearest = copy_scores(made, copies.index)
    threshold = copies.threshold(known, TrainFilters().false_rejection_of("near_copy"))
    if pictures is not None:
        worst = np.argsort(-scores)[:12]
        pairs = [np.concatenate([made[i], images[nearest[i]]]) for i in worst]
        Image.fromarray(np.concatenate(pairs, 1)).save(pictures / "nearest.png")
    flags, rng = [scores > threshold, unseen > threshold], np.random.default_rng(0)
    draws = [np.subtract(*(rng.choice(f, len(f)).mean() for f in flags)) for _ in range(2000)]
    return {
        "near_copy_excess": float(np.subtract(*(f.mean() for f in flags))),
        "near_copy_excess_interval": [float(v) for v in np.quantile(draws, [0.025, 0.975])],
        "near_copy_samples": len(made),
    }


def picture(study: Study, images: np.ndarray, path: Path) -> None:
    """Real tiles above, samples under their conditions below, evenly spread and not chosen."""
    pick = np.linspace(0, len(images) - 1, 16).astype(int)
    real = study.tiles.read(study.sources().iloc[pick])
    contact_sheet(np.concatenate([real, images[pick]]), columns=len(pick)).save(path)


def studies(root: Path, models: dict[str, str], samples: int) -> dict[str, Packaged]:
    """A study for each model, of the same tiles; each takes the model as it is."""
    place = root / "laid-out"
    if not place.exists():
        lay_out(place, choose=False)
    params = load_params(place / "params.yaml").model_dump(mode="json", exclude_unset=True)
    params["plan"]["evaluation_tiles"] = samples
    merge(params, {"tile": {"slides_root": str(place / "data/slides")}})
    for tiles in params["tile"]["sets"]:
        tiles["root"] = str(place / "data" / tiles["name"])
    slides = pd.read_csv(place / "manifests/slides.csv").to_dict("records")
    files = {f"manifests/{path.name}": path for path in (place / "manifests").glob("*.*") if path.name != "slides.csv"}
    found: dict[str, Packaged] = {}
    for name, model in models.items():
        own = as_packaged(params, model)
        found[name] = found["base"].copied(name, own) if found else Packaged(root / name, own, slides, files)
        found[name].train()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure these alone")
    parser.add_argument("--base", type=Path, default=MODEL, help="a package's name, or its folder")
    parser.add_argument(
        "--small",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="compare with histoloom-small, in a folder or from git's history",
    )
    parser.add_argument("--samples", type=int, default=3000, help="of each model")
    parser.add_argument(
        "--work", type=Path, help="keep the studies here, so that a broken run goes on where it stopped"
    )
    parser.add_argument("--pictures", type=Path, help="write pictures here, the docs' too")
    parser.add_argument("--slide-px", type=int, default=SLIDE_PX, help="side of the woven slide among the pictures")
    parser.add_argument("--json", type=Path, help="write the results here")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)).absolute()
        pictures = options.pictures and options.pictures.absolute()
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
        models = {"base": str(options.base)}
        if options.small is not None:
            models["small"] = str(options.small or from_history("histoloom-small", root))
        keys: dict = {}
        of = studies(root, models, options.samples)
        judge = judge_of(of["base"])
        for name, study in of.items():
            if "rebuilt" in options.only:
                merge(keys, measure_rebuilt(study, judge, name))
            if "excess" in options.only:
                images = sampled(study, STEPS)
                features = _tower().features(images)
                merge(keys, {"excess": {d: {name: v} for d, v in excesses(study, judge, features).items()}})
                if "image" in study.params["train_denoiser"]["conditions"]:
                    blind = excesses(study, judge, _tower().features(sampled(study, STEPS, embedded=False)))
                    merge(keys, {"excess": {d: {f"{name}_without_embedding": v} for d, v in blind.items()}})
                if name == "base":
                    keys |= measure_blocks(study, images)
                    keys |= {"realism_auc": told_from_real(study, judge, features)}
                if pictures is not None:
                    picture(study, images, pictures / f"{name}.png")
        if "few_steps" in options.only:
            keys |= measure_few_steps(of["base"], judge)
        if "precisions" in options.only:
            keys |= measure_precisions(of["base"], judge)
        if "copies" in options.only:
            keys |= measure_copies(of["base"], pictures)
        if pictures is not None:
            write_pictures(of["base"], sampled(of["base"], STEPS), pictures, options.slide_px)
    report("base_model", False, {"samples": options.samples}, flat(keys), {}, options.json)


if __name__ == "__main__":
    main()
