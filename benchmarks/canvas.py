"""Whole slides as one canvas: what a cover costs, where its seams are, and what blocks on dask add.

All covers weave with one denoiser, trained here, under DDIM, and are measured on the same machine in the same run. Seams
are looked for at the borders of each step's own cells. In full it needs the real data that HISTOLOOM_REAL_DATA names;
with --smoke it draws slides of its own, and its figures mean nothing.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.inputs import drawn_slides, her2st_slides
from benchmarks.judges import Network, judged, train_judge
from benchmarks.run import arguments, flat, report
from benchmarks.studies import Study
from pipeline.cluster import one_thread, open_pool
from pipeline.conditions.bus import Conditions
from pipeline.conditions.features import load_extractor
from pipeline.config import Cluster
from pipeline.data.commit import hash_tree
from pipeline.data.rows import spread, train_rows
from pipeline.diffusion.blocks import Layout, Weave, lay_out
from pipeline.diffusion.canvas import Denoiser
from pipeline.diffusion.covers import make_cover
from pipeline.diffusion.decode import decode_rows
from pipeline.diffusion.solver import make_solver
from pipeline.diffusion.study import generator_sha256, load_generator
from pipeline.diffusion.surroundings import Box
from pipeline.diffusion.fields import Field
from pipeline.diffusion.weaving import CanvasJob, run_canvas, segment, weave_in_memory
from pipeline.quality.metrics import kid
from pipeline.quality.seams import Gradients, gradients, owners, seam_ratio, worst_by_chance
from pipeline.report.pictures import contact_sheet

COVERS = ("lattice", "lattice_no_halo", "random", "stride", "independent")


@dataclass(frozen=True)
class Sizes:
    """window, halo : latent px. cells : cells of the lattice along a canvas. crops : of a class, for the classifier."""

    window: int = 64
    halo: int = 4
    cells: int = 4
    canvases: int = 4
    steps: tuple[int, ...] = (20, 4)
    batch_size: int = 4
    rounds: int = 200
    crops: int = 1200
    judge_steps: int = 400
    kid_crops: int = 400


SMALL = Sizes(
    window=16, halo=1, cells=3, canvases=2, steps=(4,), batch_size=3, rounds=20, crops=64, judge_steps=4, kid_crops=32
)


@dataclass(frozen=True)
class Open:
    """What is stated of a canvas of which all is to be made, under no condition."""

    channels: int
    vector: int

    def box(self, top: int, left: int, height: int, width: int) -> Box:
        free, size = np.ones((height, width), bool), (height, width)
        field = Field(Conditions(vector=torch.zeros(2, self.vector)), torch.zeros(1, 1, dtype=torch.int64), (1.0, 1.0))
        return Box(free, np.zeros((self.channels, *size), np.float32), None, field, (top, left), size)


class Counted(torch.nn.Module):
    """A denoiser that counts the latent pixels that it is given."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model, self.pixels = model, 0

    def forward(self, latents: torch.Tensor, *given, **named):
        self.pixels += latents.shape[0] * latents.shape[2] * latents.shape[3]
        return self.model(latents, *given, **named)


def study_of(root: Path, smoke: bool) -> Study:
    """Models of the demo's sizes, on her2st's sections at 1 µm/px or on drawn slides."""
    rows, tile = drawn_slides(root) if smoke else her2st_slides()
    for row in rows:
        row.pop("instances", None)
    params = {
        "tile": tile,
        "train_autoencoder": {"channels": 32, "steps": 1200, "batch_size": 8, "learning_rate": 3e-3, "detail_weight": 1.0},
        "train_denoiser": {
            "conditions": ["label"], "drop": {"label": 0.5}, "channels": [32, 64, 128], "steps": 900, "batch_size": 16,
            "learning_rate": 1e-3, "ema_decay": 0.998,
        },
        "plan": {"target": "none", "evaluation_tiles": 8},
    }  # fmt: skip
    if smoke:
        params["train_autoencoder"] |= {"channels": 16, "steps": 10}
        params["train_denoiser"] |= {"channels": [16, 32], "steps": 10}
    return Study(root / "study", params, rows, {})


def denoiser_of(study: Study, steps: int, batch_size: int, scheduler: str = "ddim"):
    """The study's denoiser without conditions, and its codec."""
    models = study.folder / "models"
    generator = load_generator(models, generator_sha256(models), "auto", "cpu")
    facts = {key: generator.training[key] for key in ("prediction", "schedule", "train_timesteps")}
    solver = make_solver(scheduler, steps=steps, **facts)
    nothing = Conditions(vector=torch.zeros(1, generator.specs[0].size))
    denoiser = Denoiser(generator.unet, generator.specs, nothing, lambda _: 0.0, solver, batch_size, "cpu")
    return denoiser, Open(generator.codec.channels, generator.specs[0].size), generator


def weave_of(cover: str, sizes: Sizes, seed: int, steps: int, channels: int) -> Weave:
    """A canvas on which the cover's cells lie evenly."""
    halo = sizes.halo if cover == "lattice" else 0
    kind = make_cover("lattice" if cover == "lattice_no_halo" else cover, sizes.window, (halo,))
    side = sizes.cells * (sizes.window - 2 * sizes.halo)
    if cover in ("lattice_no_halo", "independent"):
        side = round(side / sizes.window) * sizes.window
    return Weave(seed, kind, Layout((side,), (side,)), channels, 0, steps)


def owner_maps(weave: Weave) -> list[np.ndarray]:
    """For each step, whose prediction each pixel of the canvas took."""
    out = []
    for step in range(weave.begin, weave.end):
        origin = np.add(weave.origin(step), weave.move(step))
        out.append(owners(weave.windows(step, 0), weave.layout.canvas, weave.cover.inset(step), tuple(origin)))
    return out


def decoded(latents: np.ndarray, codec, factor: int) -> np.ndarray:
    side = latents.shape[1]
    out = np.zeros((side * factor, side * factor, 3), np.uint8)

    def read(top: int, left: int, height: int, width: int) -> np.ndarray:
        return latents[:, np.arange(top, top + height) % side][:, :, np.arange(left, left + width) % side]

    def write(top: int, left: int, pixels: np.ndarray) -> None:
        out[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels

    decode_rows(read, codec, factor, slice(0, side), side, write)
    return out


def measure_cover(
    cover: str, steps: int, sizes: Sizes, study: Study, real: np.ndarray
) -> tuple[dict, list[np.ndarray]]:
    """Cost, seams, likeness and time of one cover, over several canvases; and the canvases."""
    denoiser, around, generator = denoiser_of(study, steps, sizes.batch_size)
    counted = Counted(denoiser.model)
    denoiser, factor = replace(denoiser, model=counted), generator.codec.model.config.scaling_factor_px if False else 4
    weaves = [weave_of(cover, sizes, seed, steps, around.channels) for seed in range(sizes.canvases)]
    pictures, latents, times = [], [], []
    for weave in weaves:
        start = time.perf_counter()
        latents.append(weave_in_memory(weave, denoiser, around))
        times.append(time.perf_counter() - start)
        pictures.append(decoded(latents[-1], generator.codec, factor))
    needed = sum(np.prod(w.layout.canvas) for w in weaves) * steps
    maps = [list(step) for step in zip(*(owner_maps(w) for w in weaves))]
    found = {
        "cost_over_minimum": counted.pixels / needed,
        "wall_s": statistics.median(times),
        **seams([gradients(p, factor) for p in pictures], maps, sizes.rounds),
    }
    on_latents = seams([gradients(np.moveaxis(z, 0, -1), 1) for z in latents], maps, sizes.rounds)
    found |= {f"latent_{name}": value for name, value in on_latents.items()}
    worst = maps[int(np.argmax([seam_ratio([gradients(p, factor) for p in pictures], m) for m in maps]))]
    found |= tell_apart(pictures, worst, factor, sizes)
    found |= likeness(pictures, real, sizes)
    return found, pictures


def seams(pictures: list[Gradients], maps: list[list[np.ndarray]], rounds: int) -> dict:
    ratios = [seam_ratio(pictures, owners_) for owners_ in maps]
    chance = worst_by_chance(pictures, maps, rounds, np.random.default_rng(0))
    return {
        "seam_mean": float(np.mean(ratios)),
        "seam_worst_step": float(np.max(ratios)),
        "seam_noise_floor": float(np.quantile(chance, 0.95)),
    }


CROP = 32


def crops_of(picture: np.ndarray, owner: np.ndarray, factor: int, count: int, rng: np.random.Generator):
    """Crops with a border upright through their middle, and crops with none; those of level borders are turned."""
    from pipeline.quality.seams import borders

    astride, clear, lines = [], [], []
    half = CROP // 2
    for axis, border in enumerate(borders(owner)):
        picture_, border_ = (picture, border) if axis == 0 else (picture.swapaxes(0, 1), border.T)
        reach = -(-half // factor)
        near = np.any([np.roll(border_, shift, 1) for shift in range(-reach, reach + 1)], 0)
        for wanted, out in ((border_, astride), (~near, clear)):
            places = np.argwhere(wanted)
            for y, x in places[rng.choice(len(places), min(count // 2, len(places)), replace=False)]:
                rows = (y * factor - half + np.arange(CROP)) % picture_.shape[0]
                columns = (x * factor - half + np.arange(CROP)) % picture_.shape[1]
                out.append(picture_[np.ix_(rows, columns)])
                if out is astride:
                    lines.append((axis, int(x)))
    return np.stack(astride), np.stack(clear), lines


def tell_apart(pictures: list[np.ndarray], owner_list: list[np.ndarray], factor: int, sizes: Sizes) -> dict:
    """Area under the curve of a classifier of crops astride the worst step's borders, on canvases it never saw."""
    from sklearn.metrics import roc_auc_score

    rng, half = np.random.default_rng(0), len(pictures) // 2
    each = -(-sizes.crops // half)
    sets = [crops_of(p, o, factor, each, rng) for p, o in zip(pictures, owner_list)]

    def joined(part) -> tuple[np.ndarray, np.ndarray]:
        images = np.concatenate([np.concatenate([a, c]) for a, c, _ in part])
        truth = np.concatenate([np.r_[np.ones(len(a)), np.zeros(len(c))] for a, c, _ in part])
        return images, truth

    images, truth = joined(sets[:half])
    judge = train_judge(
        lambda: Network(1), images, truth.astype(np.float32),
        lambda out, wanted: F.binary_cross_entropy_with_logits(out[:, 0], wanted), sizes.judge_steps, 0,
    )  # fmt: skip
    images, truth = joined(sets[half:])
    scores = judged(judge, images)[:, 0]
    values = []
    for _ in range(500):
        index = rng.integers(0, len(truth), len(truth))
        if 0 < truth[index].sum() < len(index):
            values.append(roc_auc_score(truth[index], scores[index]))
    return {
        "seam_auc": float(roc_auc_score(truth, scores)),
        "seam_auc_interval": [float(v) for v in np.quantile(values, [0.025, 0.975])],
        "seam_auc_crops": int(truth.sum()),
    }


def likeness(pictures: list[np.ndarray], real: np.ndarray, sizes: Sizes) -> dict:
    """KID of random crops to real tiles, their variance within 8 px, and the share of their power in fine detail."""
    rng, side = np.random.default_rng(0), real.shape[1]
    crops = []
    for number in range(sizes.kid_crops):
        picture = pictures[number % len(pictures)]
        y, x = (int(rng.integers(0, n)) for n in picture.shape[:2])
        rows, columns = ((o + np.arange(side)) % n for o, n in zip((y, x), picture.shape))
        crops.append(picture[np.ix_(rows, columns)])
    features = [load_extractor("efficientnet-lite0", "cpu").features(part) for part in (np.stack(crops), real)]
    return {"kid": kid(*features, 50, 0)["mean"]} | detail(np.stack(crops))


def detail(images: np.ndarray) -> dict:
    grey = images.mean(3)
    n, h, w = grey.shape
    cells = grey.reshape(n, h // 8, 8, w // 8, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 64)
    power = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))) ** 2
    fine = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None]) > 0.125
    return {"local_variance": float(cells.var(1).mean()), "fine_power": float(power[:, fine].sum() / power.sum())}
