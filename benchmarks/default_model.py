"""The packaged model on a section that it never saw: reconstruction, distances beside their floors, copies, a slide.

her2st's section C5 is held out; samples are made under its tiles' conditions and compared with its tiles. Beside them
stands a model of the demo's former sizes, trained here from scratch on the same sections. It needs the real data that
HISTOLOOM_REAL_DATA names; with --smoke it draws slides of its own and packages a model of a few steps, and its figures
mean nothing.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.conditions import Judgement, column, rna_agreement
from benchmarks.judges import Segmenter, judged, segmentation_loss, train_judge
from benchmarks.packaged import MODEL, real, smoke
from benchmarks.run import arguments, chip, flat, report
from benchmarks.studies import Study
from histoloom.backbones.denoiser import save_denoiser
from histoloom.backbones.few_steps import add_few_steps, read_few_steps
from histoloom.backbones.unet import UNet
from histoloom.cli.recipe import merge
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config import TrainFilters
from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.config.package import packaged
from histoloom.data.pixel_box import PixelBox
from histoloom.data.rows import train_rows, val_rows
from histoloom.emit.model import package_few_steps
from histoloom.learners.dice import dice
from histoloom.quality.copy_search import build_index, copy_scores
from histoloom.quality.filters.near_copy import CopyFilter
from histoloom.quality.metrics import fd, kid
from histoloom.report.pictures import contact_sheet
from histoloom.slides.open import open_slide
from histoloom.slides.segment import segment_slide
from histoloom.targets.latents import Latents
from histoloom.training.reconstruction import reconstruction, reconstruction_picture

PARTS = ("reconstruction", "distances", "scratch", "few_steps", "distilled", "copies", "slide", "conditions")
STEPS = (20, 4)
UNGUIDED = {"sample": {"scheduler": "ddim", "steps": STEPS[1], "guidance": 1.0}}
SLIDE_PX = 4096
WINDOW = {SLIDE_PX: 32, 128: 16}
"""Latent px of a window, by the slide's side."""
CORNER_PX = (3000, 3000)


def measure_reconstruction(study: Study, pictures: Path | None) -> dict:
    rows, target = val_rows(study.tiles, 800), Latents.load(study.folder / "models/autoencoder", chip())
    images = study.tiles.read(rows)
    found, arrays = reconstruction(target, {"image": images})
    rebuilt = arrays["image"]
    if pictures is not None:
        some = np.linspace(0, len(images) - 1, 8).astype(int)
        reconstruction_picture({"image": images[some]}, {"image": rebuilt[some]}).save(pictures / "reconstruction.png")
    features = load_extractor("efficientnet-lite0", chip()).features(rebuilt)
    return {
        "reconstruction_psnr_db": found["psnr_db"],
        "reconstruction_ssim": found["ssim"],
        "reconstruction_kid": kid(features, held_out_features(study), 50, 0)["mean"],
    }


def sampled(study: Study, steps: int) -> np.ndarray:
    """The plan's tiles at this many steps, (n, h, w, 3) uint8."""
    study.params["sample"] = {**study.params.get("sample", {}), "steps": steps, "precision": "bf16"}
    return study.sample(f"steps{steps}", study.params["sample"].get("guidance", 2.0))


def held_out_features(study: Study) -> np.ndarray:
    tower = load_extractor("efficientnet-lite0", chip())
    return tower.features(study.tiles.read(val_rows(study.tiles, 4000)))


def distances(sets: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict:
    return {
        "kid": {name: kid(*pair, 50, 0)["mean"] for name, pair in sets.items()},
        "fd": {name: fd(*pair, 0)["value"] for name, pair in sets.items()},
    }


def measure_scratch(study: Study, scratch: Study) -> dict:
    made = load_extractor("efficientnet-lite0", chip()).features(sampled(scratch, STEPS[0]))
    return distances({"from_scratch": (made, held_out_features(study))})


def measure_distances(study: Study) -> dict:
    tower, held_out = load_extractor("efficientnet-lite0", chip()), held_out_features(study)
    train = train_rows(study.tiles)
    last = train[train["slide_id"] == sorted(set(train["slide_id"]))[-1]]
    order = np.random.default_rng(0).permutation(len(held_out))
    halves = held_out[order[::2]], held_out[order[1::2]]
    sets = {
        "floor": halves,
        "other_section": (tower.features(study.tiles.read(last)), held_out),
        **{f"steps{steps}": (tower.features(sampled(study, steps)), held_out) for steps in STEPS},
    }
    return distances(sets)


def measure_distilled(study: Study, steps: int) -> dict:
    """The model distilled here to four DDIM steps with guidance inside, `steps` of the optimiser for each halving; and its
    difference from the packaged one as low-rank updates."""
    teacher = {
        "steps": STEPS[1],
        "teacher_steps": 4 * STEPS[1],
        "guidance": study.params.get("sample", {}).get("guidance", 2.0),
    }
    train = {"distil": teacher, "steps": steps, "learning_rate": 3e-4, "warmup_steps": 20}
    student = study.copied("distilled", UNGUIDED | {"train_denoiser": train})
    student.run("encode", "train_denoiser", "plan")
    made = load_extractor("efficientnet-lite0", chip()).features(sampled(student, STEPS[1]))
    taught = study.folder.parent / "taught"
    if not taught.exists():
        shutil.copytree(Path(packaged(study.params["train_denoiser"]["init"], "denoiser")).parent, taught)
    package_few_steps(taught, models=student.folder / "models")
    keys = distances({"distilled4": (made, held_out_features(study))})
    merge(keys, measure_few_steps(study, str(taught), "distilled_low_rank"))
    return keys


def measure_few_steps(study: Study, model: str, name: str = "few_steps") -> dict:
    """The packaged model with its own low-rank updates for few steps; nothing of a package that has none."""
    source = packaged(model, "denoiser")
    if read_few_steps(source) is None:
        return {}
    student = study.copied(name, UNGUIDED)
    denoiser = student.folder / "models/denoiser"
    # the study's, whose tiles may be smaller than those that the package saw
    record = read_denoiser_record(denoiser)
    shutil.rmtree(denoiser)
    unet = UNet.load(source, record)
    training = replace(record.training, distilled=add_few_steps(unet, source))
    save_denoiser(unet, replace(record, training=training), denoiser)
    made = load_extractor("efficientnet-lite0", chip()).features(sampled(student, STEPS[1]))
    return distances({name: (made, held_out_features(study))})


def measure_copies(study: Study, pictures: Path | None) -> dict:
    """Share of samples that the near-copy filter flags at its own threshold, less that of real held-out tiles, others than it was set on."""
    rows = train_rows(study.tiles)
    images = study.tiles.read(rows)
    copies = CopyFilter(build_index(rows["tile_id"].to_numpy(str), [images]))
    made = sampled(study, STEPS[0])
    rows = val_rows(study.tiles, 2 * len(made))
    known, held_out = (copy_scores(study.tiles.read(part), copies.index)[0] for part in (rows[::2], rows[1::2]))
    scores, nearest = copy_scores(made, copies.index)
    threshold = copies.threshold(known, TrainFilters().false_rejection_of("near_copy"))
    if pictures is not None:
        worst = np.argsort(-scores)[:12]
        pairs = [np.concatenate([made[i], images[nearest[i]]]) for i in worst]
        Image.fromarray(np.concatenate(pairs, 1)).save(pictures / "nearest.png")
    rng = np.random.default_rng(0)
    flags = [scores > threshold, held_out > threshold]
    draws = [np.subtract(*(rng.choice(f, len(f)).mean() for f in flags)) for _ in range(2000)]
    return {
        "near_copy_excess": float(np.subtract(*(f.mean() for f in flags))),
        "near_copy_score_median": {"samples": float(np.median(scores)), "held_out": float(np.median(held_out))},
        "near_copy_excess_interval": [float(v) for v in np.quantile(draws, [0.025, 0.975])],
    }


def measure_conditions(study: Study, tiles: int, steps: int, pictures: Path) -> dict:
    """Whether held-out conditions are obeyed, each alone, by judges trained on real train tiles at half the scale."""
    study.params["plan"]["evaluation_tiles"] = tiles
    study.run("plan")
    judgement = Halved(study, steps, pictures)
    rows, images = judgement.train_tiles()
    truth = halved((study.tiles.read(rows, "mask") == 1).astype(np.uint8)[..., None] * 255)[..., 0] > 127
    segmenter = train_judge(Segmenter, images, truth.astype(np.uint8), segmentation_loss, steps, 0)
    sources = study.sources()
    stated = halved((study.tiles.read(sources, "mask") == 1).astype(np.uint8)[..., None] * 255)[..., 0] > 127
    from_mask, real = judgement.sample("mask"), judgement.real()
    found = {name: judged(segmenter, part)[:, 0] > 0 for name, part in (("made", from_mask), ("real", real))}
    deal = np.random.default_rng(0).permutation(len(stated))
    scores = {
        "floor": float(dice(found["made"], stated[deal], 1).mean()),
        "synthetic": float(dice(found["made"], stated, 1).mean()),
        "ceiling": float(dice(found["real"], stated, 1).mean()),
    }
    scores["share_of_the_way"] = (scores["synthetic"] - scores["floor"]) / (scores["ceiling"] - scores["floor"])
    out = {"mask": {"dice": scores}}
    asked = {
        "label": ("label", column("label")),
        "text_nuclei": ("text", clause(0)),
        "text_ground": ("text", clause(1)),
    }
    shown = {"mask": from_mask, **{name: judgement.sample(name) for name in ("label", "text")}}
    for name, (condition, of) in asked.items():
        known = judgement.agreement(of, judgement.classes(of), shown[condition], "tile_id")
        out[name] = {"agreement": known}
    if "rna" in study.params["train_denoiser"]["conditions"]:
        shown["rna"] = judgement.sample("rna")
        out["rna"] = {"correlation": rna_agreement(judgement, shown["rna"], real)}
    pick = np.linspace(0, len(real) - 1, 12).astype(int)
    sheet = np.concatenate([real[pick], *(part[pick] for part in shown.values())])
    pictures.mkdir(parents=True, exist_ok=True)
    contact_sheet(sheet, columns=len(pick)).save(pictures / "conditions.png")
    return {"conditions": out}


class Halved(Judgement):
    """Judgement at half the scale, at which a judge of tiles of 128 px takes a quarter of the time."""

    def train_tiles(self):
        rows, images = super().train_tiles()
        return rows, halved(images)

    def real(self) -> np.ndarray:
        return halved(super().real())

    def sample(self, *given: str) -> np.ndarray:
        return halved(super().sample(*given))


def halved(images: np.ndarray) -> np.ndarray:
    """(n, h, w, c) uint8 to (n, h / 2, w / 2, c), averaged."""
    n, h, w, c = images.shape
    return images.reshape(n, h // 2, 2, w // 2, 2, c).mean((2, 4)).round().astype(np.uint8)


def clause(number: int):
    """What a caption says of nuclei (0) or of the ground (1)."""
    return lambda rows: np.array([(text or "").split(", ")[number] if text else "" for text in rows["caption"]])


def measure_slide(study: Study, side: int, pictures: Path | None) -> dict:
    """A slide under the nuclei and clear space of a region of the held-out section; never to be emitted."""
    entry, group = val_rows(study.tiles).iloc[0][["slide_id", "split_group"]]
    root = Path(study.params["tile"]["slides_root"])
    source = next(p for p in sorted(root.iterdir()) if p.stem == entry)
    mpp, folder = study.params["tile"]["mpp"], study.folder / "manifests/canvas"
    corner = CORNER_PX if side == SLIDE_PX else (0, 0)
    rows = pd.read_csv(study.folder / "manifests/slides.csv").set_index("slide_id")
    stated = float(rows.loc[entry, "mpp"]) if "mpp" in rows else None
    with open_slide(source, stated) as whole:
        level0 = math.ceil(side * mpp / whole.mpp)
    segment_slide(source, ("nucleus", "clear"), mpp, PixelBox(*corner, level0, level0), folder, stated)
    height, width = np.asarray(Image.open(folder / "mask.png")).shape
    slide = {
        "name": "held-out", "width_px": width, "height_px": height, "mask": "manifests/canvas/mask.png",
        "source_groups": [group], "purpose": "evaluate", "outside": "tissue",  # what is no nucleus and not clear is stroma
    }  # fmt: skip
    scale = study.params.get("sample_slides", {}).get("guidance", 2.0)
    given = study.params["train_denoiser"]["conditions"]
    study.params["sample_slides"] = {
        "slides": [slide],
        "guidance": {name: scale if name == "mask" else 0.0 for name in given},  # nothing but the mask is stated
        "steps": STEPS[0],
        "precision": "bf16",
        "window_latent_px": WINDOW[side],
    }
    study.run("sample_slides")
    woven = study.folder / "data/woven/held-out"
    if pictures is not None:
        shutil.copy(woven / "slide.tif", pictures / "slide.tif")
    found = json.loads((study.folder / "reports/sample_slides/metrics.json").read_text(encoding="utf-8"))
    seconds = found["slides"]["held-out"]
    keys = {"slide_wall_s": seconds["weave_s"] + seconds["decode_s"], "slide_px": width * height}
    return keys | {"slide_kid": beside_single_tiles(study, woven / "slide.tif", corner, level0 / side)}


def beside_single_tiles(study: Study, slide: Path, corner: tuple[int, int], downsample: float) -> dict:
    """KID of tiles cut from the woven slide, where the real section has tiles, to these; and of tiles sampled one by one
    under the conditions of these, of which they have more: label and expression, and captions of their own."""
    made, plan, side = sampled(study, STEPS[0]), study.plan, study.params["tile"]["tile_px"]
    rows = study.tiles.rows().set_index("tile_id", drop=False).loc[plan["condition_ref"]]
    places = (rows[["x_level0_px", "y_level0_px"]].to_numpy() - corner) / downsample
    with open_slide(slide, study.params["tile"]["mpp"]) as whole:
        inside = ((places >= 0) & (places + side <= (whole.width, whole.height))).all(1)
        if inside.sum() < 20:
            return {}
        woven = np.stack([whole.read(PixelBox(x, y, side, side), 1.0) for x, y in places[inside]])
    tower = load_extractor("efficientnet-lite0", chip())
    real = tower.features(study.tiles.read(rows[inside]))
    both = {"woven": woven, "single": made[inside]}
    return {name: kid(tower.features(images), real, 50, 0)["mean"] for name, images in both.items()}


def main() -> None:
    options = arguments(
        __doc__, PARTS, work="keep the studies here, so that a broken run goes on where it stopped",
        pictures="write pictures here", model="a packaged model's folder or name (histoloom-small)",
    )  # fmt: skip
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as temporary:
        root = (options.work or Path(temporary)).absolute()
        pictures = options.pictures and options.pictures.absolute()
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
        model = str(options.model or MODEL)
        study, scratch = smoke(root) if options.smoke else real(root, model, 2000)
        study.train()
        if "scratch" in options.only and not options.smoke:
            scratch.train()
        parts = {
            "reconstruction": lambda: measure_reconstruction(study, pictures),
            "distances": lambda: measure_distances(study),
            "scratch": lambda: measure_scratch(study, scratch),
            "few_steps": lambda: measure_few_steps(study, study.params["train_denoiser"]["init"]),
            "distilled": lambda: measure_distilled(study, 4 if options.smoke else 400),
            "copies": lambda: measure_copies(study, pictures),
            "slide": lambda: measure_slide(study, 128 if options.smoke else SLIDE_PX, pictures),
            "conditions": lambda: measure_conditions(
                study, *((24, 10) if options.smoke else (500, 400)), pictures or root / "pictures"
            ),
        }
        keys: dict = {}
        for name in (part for part in PARTS if part in options.only):  # the last, conditions, changes the study
            merge(keys, parts[name]())
    report("default_model", options.smoke, {"params": study.params}, flat(keys), {}, options.json)


if __name__ == "__main__":
    main()
