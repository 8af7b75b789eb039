"""What covers of a canvas are measured by: cost, seams at the borders of each step's own cells, likeness to tissue."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from benchmarks.judges import Network, judged, train_judge
from pipeline.conditions.bus import Conditions
from pipeline.conditions.features import load_extractor
from pipeline.diffusion.blocks import Layout, Weave
from pipeline.diffusion.canvas import Denoiser
from pipeline.diffusion.covers import make_cover
from pipeline.diffusion.decode import decode_rows
from pipeline.diffusion.fields import Field
from pipeline.diffusion.solver import make_solver
from pipeline.diffusion.study import generator_sha256, load_generator
from pipeline.diffusion.surroundings import Box
from pipeline.diffusion.weaving import weave_in_memory
from pipeline.quality.metrics import kid
from pipeline.quality.seams import Gradients, borders, gradients, owners, seam_ratio, worst_by_chance

FACTOR = 4
"""Pixels to a latent pixel, of the demo's autoencoder."""
CROP = 32
COVERS = ("lattice", "lattice_no_halo", "random", "stride", "independent")


@dataclass(frozen=True)
class Sizes:
    """window, halo : latent px. cells : cells of the lattice along a canvas. crops : of a class, for the classifier."""

    window: int = 64
    halo: int = 4
    cells: int = 4
    canvases: int = 8
    steps: tuple[int, ...] = (20, 4)
    batch_size: int = 4  # of what is timed; what is counted is counted one window at a time
    rounds: int = 200
    crops: int = 1200
    judge_steps: int = 400
    kid_crops: int = 800

    @property
    def cell(self) -> int:
        return self.window - 2 * self.halo


FULL = Sizes()
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


@dataclass(frozen=True)
class LoadOpen:
    """A study's denoiser under no condition, and a canvas of which all is to be made; what a worker calls."""

    models: Path
    steps: int
    batch_size: int

    def __call__(self) -> tuple[Denoiser, Open]:
        generator = self.generator
        facts = {key: generator.training[key] for key in ("prediction", "schedule", "train_timesteps")}
        solver, vector = make_solver("ddim", steps=self.steps, **facts), generator.specs[0].size
        nothing = Conditions(vector=torch.zeros(1, vector))
        denoiser = Denoiser(generator.unet, generator.specs, nothing, lambda _: 0.0, solver, self.batch_size, "cpu")
        return denoiser, Open(generator.codec.channels, vector)

    @property
    def generator(self):
        return load_generator(self.models, generator_sha256(self.models), "auto", "cpu")


def weave_of(cover: str, sizes: Sizes, seed: int, steps: int, channels: int) -> Weave:
    """A canvas on which the cover's cells lie evenly."""
    halo = sizes.halo if cover == "lattice" else 0
    kind = make_cover("lattice" if cover == "lattice_no_halo" else cover, sizes.window, (halo,))
    side = sizes.cells * sizes.cell
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


def decoded(latents: np.ndarray, codec) -> np.ndarray:
    """A torus of latents (c, h, w) as (h * factor, w * factor, 3) uint8."""
    side = latents.shape[1]
    out = np.zeros((side * FACTOR, side * FACTOR, 3), np.uint8)

    def read(top: int, left: int, height: int, width: int) -> np.ndarray:
        return latents[:, np.arange(top, top + height) % side][:, :, np.arange(left, left + width) % side]

    def write(top: int, left: int, pixels: np.ndarray) -> None:
        out[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels

    decode_rows(read, codec, FACTOR, slice(0, side), side, write)
    return out


def measure_cover(cover: str, load: LoadOpen, sizes: Sizes, real: np.ndarray) -> tuple[dict, list[np.ndarray]]:
    """Cost, seams, likeness and time of one cover, over several canvases; and their pictures."""
    denoiser, around = load()
    codec, steps = load.generator.codec, load.steps
    counted = Counted(denoiser.model)
    weaves = [weave_of(cover, sizes, seed, steps, around.channels) for seed in range(sizes.canvases)]
    pictures, latents, times = [], [], []
    for weave in weaves:
        start = time.perf_counter()
        latents.append(weave_in_memory(weave, replace(denoiser, model=counted), around))
        times.append(time.perf_counter() - start)
        pictures.append(decoded(latents[-1], codec))
    maps = [list(step) for step in zip(*(owner_maps(w) for w in weaves))]
    on_pictures = [gradients(picture, FACTOR) for picture in pictures]
    on_latents = seams([gradients(np.moveaxis(z, 0, -1), 1) for z in latents], maps, sizes.rounds)
    worst = maps[int(np.argmax([seam_ratio(on_pictures, owners_) for owners_ in maps]))]
    found = {
        "cost_over_minimum": counted.pixels / (sum(np.prod(w.layout.canvas) for w in weaves) * steps),
        "wall_s": statistics.median(times),
        **seams(on_pictures, maps, sizes.rounds),
        **{f"latent_{name}": value for name, value in on_latents.items()},
        **tell_apart(pictures, worst, sizes),
        **likeness(pictures, real, sizes),
    }
    return found, pictures


def seams(pictures: list[Gradients], maps: list[list[np.ndarray]], rounds: int) -> dict:
    ratios = [seam_ratio(pictures, owners_) for owners_ in maps]
    chance = worst_by_chance(pictures, maps, rounds, np.random.default_rng(0))
    return {
        "seam_mean": float(np.mean(ratios)),
        "seam_worst_step": float(np.max(ratios)),
        "seam_noise_floor": float(np.quantile(chance, 0.95)),
    }


def crops_of(picture: np.ndarray, owner: np.ndarray, count: int, rng: np.random.Generator):
    """Crops with a border upright through their middle, and crops with none; those of level borders are turned."""
    astride, clear = [], []
    half, factor = CROP // 2, FACTOR
    for axis, border in enumerate(borders(owner)):
        picture_, border_ = (picture, border) if axis == 0 else (picture.swapaxes(0, 1), border.T)
        reach = -(-half // factor)
        near = np.any([np.roll(border_, shift, 1) for shift in range(-reach, reach + 1)], 0)
        for wanted, out in ((border_, astride), (~near if (~near).any() else ~border_, clear)):
            places = np.argwhere(wanted)
            for y, x in places[rng.choice(len(places), min(count // 2, len(places)), replace=False)]:
                rows = (y * factor - half + np.arange(CROP)) % picture_.shape[0]
                columns = (x * factor - half + np.arange(CROP)) % picture_.shape[1]
                out.append(picture_[np.ix_(rows, columns)])
    return np.stack(astride), np.stack(clear)


def tell_apart(pictures: list[np.ndarray], maps: list[np.ndarray], sizes: Sizes) -> dict:
    """Area under the curve of a classifier of crops astride the worst step's borders, on canvases it never saw."""
    rng, half = np.random.default_rng(0), len(pictures) // 2
    each = -(-sizes.crops // half)
    sets = [crops_of(picture, owner, each, rng) for picture, owner in zip(pictures, maps)]

    def joined(part) -> tuple[np.ndarray, np.ndarray]:
        images = np.concatenate([np.concatenate([a, c]) for a, c in part])
        truth = np.concatenate([np.r_[np.ones(len(a)), np.zeros(len(c))] for a, c in part])
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
    each = [features[0][number :: len(pictures)] for number in range(len(pictures))]
    by_canvas = {"kid_by_canvas": [kid(part, features[1], 50, 0)["mean"] for part in each]}
    return {"kid": kid(*features, 50, 0)["mean"]} | by_canvas | detail(np.stack(crops))


def kid_interval(ours: dict, theirs: dict) -> list[float]:
    """95 % interval of the mean difference of KID between two covers of the same seeds, by bootstrap over canvases."""
    difference = np.subtract(ours["kid_by_canvas"], theirs["kid_by_canvas"])
    rng = np.random.default_rng(0)
    means = [rng.choice(difference, len(difference)).mean() for _ in range(2000)]
    return [float(v) for v in np.quantile(means, [0.025, 0.975])]


def detail(images: np.ndarray) -> dict:
    grey = images.mean(3)
    n, h, w = grey.shape
    cells = grey.reshape(n, h // 8, 8, w // 8, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 64)
    power = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))) ** 2
    fine = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None]) > 0.125
    return {"local_variance": float(cells.var(1).mean()), "fine_power": float(power[:, fine].sum() / power.sum())}
