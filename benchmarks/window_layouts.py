"""What window layouts of a canvas are measured by: cost, seams at the borders of each step's own cells, likeness to tissue."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import maximum_filter
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from benchmarks.canvases import LoadOpen, Sizes, Square, map_of
from benchmarks.judges import Network, judged, train_judge
from benchmarks.run import chip
from histoloom.backbones.backbone import Forward
from histoloom.canvas.blocks import BlockGrid, CanvasPlan
from histoloom.canvas.decode import decode_rows
from histoloom.canvas.weaving import weave_in_memory
from histoloom.canvas.window_layouts import make_window_layout
from histoloom.conditions.batch import Conditions
from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.pixel_box import PixelBox
from histoloom.quality.kid import kid
from histoloom.quality.seams import Gradients, borders, gradients, owners, seam_ratio, worst_by_chance
from histoloom.targets.target import Raster

CROP = 32
LAYOUTS = ("lattice", "lattice_no_halo", "random", "stride", "independent")


class Counted(torch.nn.Module):
    """A denoiser that counts the latent pixels that it is given."""

    def __init__(self, network: Forward):
        super().__init__()
        self.network, self.pixels = network, 0

    def forward(self, latents: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        self.pixels += latents.shape[0] * latents.shape[2] * latents.shape[3]
        return self.network(latents, times, given)


def plan_of(layout: str, sizes: Sizes, seed: int, steps: int, channels: int) -> CanvasPlan:
    halo = sizes.halo if layout == "lattice" else 0
    windows = make_window_layout("lattice" if layout == "lattice_no_halo" else layout, sizes.window, (halo,))
    return CanvasPlan(seed, windows, BlockGrid((sizes.side,), (sizes.side,)), channels, 0, steps)


def batch_of(layout: str, sizes: Sizes) -> int:
    """How many windows are denoised at once where they are counted, so that none is there to fill a batch."""
    whole = sizes.side // sizes.window
    return {"lattice": sizes.cells, "stride": 2 * whole, "random": 1}.get(layout, whole)


def owner_maps(plan: CanvasPlan) -> list[np.ndarray]:
    """For each step, whose prediction each pixel of the canvas took."""
    out = []
    for step in range(plan.begin, plan.end):
        origin = np.add(plan.origin(step), plan.move(step))
        out.append(owners(plan.windows(step, 0), plan.blocks.canvas, plan.layout.inset(step), tuple(origin)))
    return out


def decoded(latents: np.ndarray, target: Raster) -> np.ndarray:
    """A torus of latents (c, h, w) as (h * factor, w * factor, 3) uint8."""
    side, factor = latents.shape[1], target.factor
    out = np.zeros((side * factor, side * factor, 3), np.uint8)

    def read(box: PixelBox[int]) -> np.ndarray:
        return latents[:, np.arange(box.top, box.bottom) % side][:, :, np.arange(box.left, box.right) % side]

    def write(pixels: np.ndarray, *, left: int, top: int) -> None:
        out[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels

    decode_rows(read, target, slice(0, side), side, write)
    return out


@dataclass(frozen=True)
class Woven:
    """Canvases of one layout: latents (c, h, w), each one's wall time, and how many latent pixels the denoiser was given for all."""

    plans: list[CanvasPlan]
    latents: list[np.ndarray]
    times: list[float]
    pixels: int


def weave_layout(layout: str, load: LoadOpen, sizes: Sizes, real: list[Square], kept: Path) -> Woven:
    """Each under a mask of its own. What is `kept` is taken up by a run that was broken, or that has another decoder."""
    denoiser, inputs = load()
    counted = Counted(denoiser.predictor.network)
    predictor = replace(denoiser.predictor, network=counted)
    denoiser = replace(denoiser, predictor=predictor, batch_size=batch_of(layout, sizes))
    canvases = sizes.fewer if layout in ("random", "stride") else sizes.canvases
    plans = [plan_of(layout, sizes, seed, load.steps, inputs.channels) for seed in range(canvases)]
    latents, times, pixels = [], [], 0
    kept.mkdir(parents=True, exist_ok=True)
    for plan, square in zip(plans, real):
        file = kept / f"{layout}-{load.steps}-{plan.seed}.npz"
        if not file.exists():
            start, counted.pixels = time.perf_counter(), 0
            woven = weave_in_memory(plan, denoiser, replace(inputs, map=map_of(square.mask, predictor.specs, sizes)))
            took = time.perf_counter() - start
            with file.with_suffix(".new").open("wb") as stream:
                np.savez(stream, latents=woven, wall_s=took, pixels=counted.pixels)
            file.with_suffix(".new").replace(file)
        with np.load(file) as found:
            latents.append(found["latents"])
            times.append(float(found["wall_s"]))
            pixels += int(found["pixels"])
    return Woven(plans, latents, times, pixels)


def measure_layout(
    layout: str, load: LoadOpen, sizes: Sizes, real: list[Square], kept: Path
) -> tuple[dict, list[np.ndarray]]:
    """Cost, seams, likeness and time of one layout, over several canvases, and their pictures."""
    woven, target = weave_layout(layout, load, sizes, real, kept), load.model.target
    pictures = [decoded(latents, target) for latents in woven.latents]
    owned = [list(step) for step in zip(*(owner_maps(plan) for plan in woven.plans))]
    on_pictures = [gradients(picture, sizes.factor) for picture in pictures]
    on_latents = seams([gradients(np.moveaxis(z, 0, -1), 1) for z in woven.latents], owned, sizes.rounds)
    worst = owned[int(np.argmax([seam_ratio(on_pictures, owners_) for owners_ in owned]))]
    found = {
        "cost_over_minimum": woven.pixels / (sum(np.prod(plan.blocks.canvas) for plan in woven.plans) * load.steps),
        "wall_s": statistics.median(woven.times),
        **seams(on_pictures, owned, sizes.rounds),
        **{f"latent_{name}": value for name, value in on_latents.items()},
        **tell_apart(pictures, worst, sizes),
        **likeness(pictures, [plan.seed for plan in woven.plans], real, sizes),
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


def crops_of(picture: np.ndarray, owner: np.ndarray, count: int, factor: int, rng: np.random.Generator):
    """Crops with a border upright through their middle, and crops with none; those of level borders are turned."""
    astride, clear = [], []
    half = CROP // 2
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
    sets = [crops_of(picture, owner, each, sizes.factor, rng) for picture, owner in zip(pictures, maps)]

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


def likeness(pictures: list[np.ndarray], seeds: list[int], real: list[Square], sizes: Sizes) -> dict:
    """KID of random crops to the real tiles of the masks' squares, their variance within 8 px, and the fraction of
    their power in fine detail. `_inside` is of crops where the borders of independent tiles of the same seeds are not, where a
    window has room for one.
    """
    tower = load_extractor("efficientnet-lite0", chip())
    side, count = real[0].tiles.shape[1], sizes.kid_crops // len(pictures)
    known, found = np.concatenate([square.features for square in real]), {}
    alone = [owner_maps(plan_of("independent", sizes, seed, 1, 1))[0] for seed in seeds]
    clear = [clear_of(owner, sizes.factor) for owner in alone]
    for name, free in (("", [np.ones_like(part) for part in clear]), ("_inside", clear)):
        crops = [random_crops(*pair, side, count, np.random.default_rng(0)) for pair in zip(pictures, free)]
        if any(len(part) < count for part in crops):
            continue
        each = [tower.features(part) for part in crops]
        found |= {
            f"kid{name}": kid(np.concatenate(each), known, 50, 0)["mean"],
            f"kid{name}_by_canvas": [kid(part, known, 50, 0)["mean"] for part in each],
            **{f"{key}{name}": value for key, value in detail(np.concatenate(crops)).items()},
        }
    return found


def clear_of(owner: np.ndarray, factor: int) -> np.ndarray:
    """Pixels of the picture that lie 16 px and more from a border."""
    border = np.kron(np.logical_or(*borders(owner)), np.ones((factor, factor))) > 0
    return ~maximum_filter(border, 33, mode="wrap")


def random_crops(picture: np.ndarray, free: np.ndarray, side: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """At most `count` crops (n, side, side, 3) of a torus, at random places where all pixels are free."""
    crops = []
    for y, x in rng.integers(0, picture.shape[:2], (100 * count, 2)):
        place = np.ix_(*((o + np.arange(side)) % n for o, n in zip((y, x), picture.shape)))
        if free[place].all():
            crops.append(picture[place])
        if len(crops) == count:
            break
    return np.array(crops)


def difference_interval(ours: dict, theirs: dict, key: str) -> list[float]:
    """95 % interval of the mean difference between two layouts of the same seeds and masks, by bootstrap over canvases."""
    difference = np.subtract(ours[key], theirs[key])
    rng = np.random.default_rng(0)
    means = [rng.choice(difference, len(difference)).mean() for _ in range(2000)]
    return [float(v) for v in np.quantile(means, [0.025, 0.975])]


def detail(images: np.ndarray) -> dict:
    """Of tiles (n, h, w, 3) uint8."""
    grey = images.mean(3)
    n, h, w = grey.shape
    cells = grey.reshape(n, h // 8, 8, w // 8, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 64)
    power = np.abs(np.fft.fft2(grey - grey.mean((1, 2), keepdims=True))) ** 2
    fine = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None]) > 0.125
    return {"local_variance": float(cells.var(1).mean()), "fine_power": float(power[:, fine].sum() / power.sum())}
