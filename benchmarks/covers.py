"""What covers of a canvas are measured by: cost, seams at the borders of each step's own cells, likeness to tissue."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.ndimage import maximum_filter
from sklearn.metrics import roc_auc_score
from torch.nn import functional as F

from benchmarks.judges import Network, judged, train_judge
from benchmarks.studies import Study
from pipeline.conditions.bus import Conditions, cat
from pipeline.conditions.encode import null
from pipeline.conditions.features import load_extractor
from pipeline.conditions.mask import mask_map
from pipeline.data.commit import read_record
from pipeline.diffusion import torus
from pipeline.diffusion.blocks import Layout, Weave
from pipeline.diffusion.canvas import Denoiser
from pipeline.diffusion.covers import make_cover
from pipeline.diffusion.decode import decode_rows
from pipeline.diffusion.fields import Field
from pipeline.diffusion.solver import make_solver
from pipeline.diffusion.study import Generator, generator_sha256, load_generator
from pipeline.diffusion.surroundings import Box
from pipeline.diffusion.weaving import weave_in_memory
from pipeline.errors import HistoloomError
from pipeline.quality.metrics import kid
from pipeline.quality.seams import Gradients, borders, gradients, owners, seam_ratio, worst_by_chance

CROP = 32
COVERS = ("lattice", "lattice_no_halo", "random", "stride", "independent")


@dataclass(frozen=True)
class Sizes:
    """window : latent px, as in training; halo : latent px, a sixteenth of it. cells : cells of the lattice along a canvas, which
    is whole windows long too. factor : pixels to a latent pixel. crops : of a class, for the classifier.
    """

    window: int = 16
    halo: int = 1
    cells: int = 8
    factor: int = 8
    canvases: int = 8
    steps: tuple[int, ...] = (20, 4)
    batch_size: int = (
        16  # of what is timed; what is counted is counted a row of cells at a time, of which no batch is padded
    )
    rounds: int = 200
    crops: int = 1200
    judge_steps: int = 400
    kid_crops: int = 800

    @property
    def cell(self) -> int:
        return self.window - 2 * self.halo

    @property
    def side(self) -> int:
        """Of a canvas, latent px."""
        return self.cells * self.cell


FULL = Sizes()
SMALL = Sizes(
    window=8, cells=4, factor=4, canvases=2, steps=(4,), batch_size=4, rounds=20, crops=64, judge_steps=4, kid_crops=32
)


@dataclass(frozen=True)
class Square:
    """A square of a section that its tiles cover whole: its mask (h, w) and the tiles inside, (n, t, t, 3) uint8."""

    mask: np.ndarray
    tiles: np.ndarray


def squares(study: Study, sizes: Sizes) -> list[Square]:
    """Squares of held-out sections as large as a canvas, that share no pixel.

    Raises
    ------
    HistoloomError
        when there are fewer than canvases.
    """
    store, tile, out = study.tiles, study.params["tile"], []
    per_tile, reach = tile["tile_px"] // tile["stride_px"], sizes.side * sizes.factor // tile["tile_px"] - 1
    rows = store.rows()
    for part, members in rows[rows["split"] == "val"].groupby("part"):
        level0 = tile["mpp"] / read_record(store.folder / part)["info"]["mpp_level0"] * tile["stride_px"]
        places = (members[["y_level0_px", "x_level0_px"]] / level0).round().astype(int)
        index = dict(zip(places.itertuples(index=False, name=None), members.index))
        free, span = set(index), range(reach * per_tile + 1)
        for y, x in sorted(index):
            inside = [(y + i, x + j) for i in span for j in span]
            if not free.issuperset(inside):
                continue
            free.difference_update((y + i, x + j) for i in range(-1, len(span) + 1) for j in range(-1, len(span) + 1))
            chosen = members.loc[[index[place] for place in inside]]
            masks = store.read(
                members.loc[[index[p] for p in inside if not any((p - np.array([y, x])) % per_tile)]], "mask"
            )
            whole = masks.reshape(reach + 1, reach + 1, *masks.shape[1:]).swapaxes(1, 2)
            out.append(Square(whole.reshape(2 * (sizes.side * sizes.factor,)), store.read(chosen)))
    if len(out) < sizes.canvases:
        raise HistoloomError(f"The held-out sections have {len(out)} whole squares, and {sizes.canvases} are wanted.")
    return out[: sizes.canvases]


@dataclass(frozen=True)
class Open:
    """What is stated of a canvas of which all is to be made, under a map (c, h, w), or under no condition."""

    channels: int
    nothing: Conditions
    map: np.ndarray | None = None

    def box(self, top: int, left: int, height: int, width: int) -> Box:
        free, size = np.ones((height, width), bool), (height, width)
        points = replace(cat([self.nothing, self.nothing]), map=None)
        field = Field(points, torch.zeros(1, 1, dtype=torch.int64), (1.0, 1.0))
        if self.map is None:
            given = np.zeros((self.nothing.map.shape[1], *size), np.float16)
        else:
            canvas = self.map.shape[1:]
            given = torus.read(lambda rows, columns: self.map[:, rows, columns], top, left, height, width, canvas)
        return Box(free, np.zeros((self.channels, *size), np.float32), given, field, (top, left), size)


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
    """A study's denoiser, and a canvas of which all is to be made, under no condition; what a worker calls.

    masked : whether a map will be given; no guidance is, so that a step takes one forward.
    """

    models: Path
    steps: int
    batch_size: int
    masked: bool = False

    def __call__(self) -> tuple[Denoiser, Open]:
        generator = self.generator
        facts = {key: generator.training[key] for key in ("prediction", "schedule", "train_timesteps")}
        solver, nothing = make_solver("ddim", steps=self.steps, **facts), nothing_given(generator)
        scale = (lambda name: float(name == "mask")) if self.masked else (lambda _: 0.0)
        denoiser = Denoiser(generator.unet, generator.specs, nothing, scale, solver, self.batch_size, "cpu")
        return denoiser, Open(generator.codec.channels, nothing)

    @property
    def generator(self) -> Generator:
        return load_generator(self.models, generator_sha256(self.models), "auto", "cpu", "bf16")


def nothing_given(generator: Generator) -> Conditions:
    """The nulls of all conditions, one row; a map's as large as a window in training."""
    row = pd.DataFrame([{"label": None, "caption": "", "rna": None, "genotype": None, "mpp": 1.0}])
    side = 8 * generator.training["latent_px"]
    picture = np.zeros((1, side, side), np.uint8)
    return null(generator.encoders.arrays(row, lambda _: picture), generator.specs)


def map_of(square: Square, load: LoadOpen, sizes: Sizes) -> np.ndarray:
    """The map (c, h, w) of a square's mask."""
    channels = next(spec.channels for spec in load.generator.specs if spec.name == "mask")
    return mask_map(square.mask[None], None, channels, sizes.side, sizes.side)[0]


def weave_of(cover: str, sizes: Sizes, seed: int, steps: int, channels: int) -> Weave:
    halo = sizes.halo if cover == "lattice" else 0
    kind = make_cover("lattice" if cover == "lattice_no_halo" else cover, sizes.window, (halo,))
    return Weave(seed, kind, Layout((sizes.side,), (sizes.side,)), channels, 0, steps)


def batch_of(cover: str, sizes: Sizes) -> int:
    """How many windows are denoised at once where they are counted, so that none is there to fill a batch."""
    whole = sizes.side // sizes.window
    return {"lattice": sizes.cells, "stride": 2 * whole, "random": 1}.get(cover, whole)


def owner_maps(weave: Weave) -> list[np.ndarray]:
    """For each step, whose prediction each pixel of the canvas took."""
    out = []
    for step in range(weave.begin, weave.end):
        origin = np.add(weave.origin(step), weave.move(step))
        out.append(owners(weave.windows(step, 0), weave.layout.canvas, weave.cover.inset(step), tuple(origin)))
    return out


def decoded(latents: np.ndarray, codec, factor: int) -> np.ndarray:
    """A torus of latents (c, h, w) as (h * factor, w * factor, 3) uint8."""
    side = latents.shape[1]
    out = np.zeros((side * factor, side * factor, 3), np.uint8)

    def read(top: int, left: int, height: int, width: int) -> np.ndarray:
        return latents[:, np.arange(top, top + height) % side][:, :, np.arange(left, left + width) % side]

    def write(top: int, left: int, pixels: np.ndarray) -> None:
        out[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels

    decode_rows(read, codec, factor, slice(0, side), side, write)
    return out


def measure_cover(cover: str, load: LoadOpen, sizes: Sizes, real: list[Square]) -> tuple[dict, list[np.ndarray]]:
    """Cost, seams, likeness and time of one cover, over several canvases, each under a real square's mask; and their pictures."""
    denoiser, around = load()
    codec, steps = load.generator.codec, load.steps
    counted = Counted(denoiser.model)
    denoiser = replace(denoiser, model=counted, batch_size=batch_of(cover, sizes))
    weaves = [weave_of(cover, sizes, seed, steps, around.channels) for seed in range(sizes.canvases)]
    pictures, latents, times = [], [], []
    for weave, square in zip(weaves, real):
        start = time.perf_counter()
        latents.append(weave_in_memory(weave, denoiser, replace(around, map=map_of(square, load, sizes))))
        times.append(time.perf_counter() - start)
        pictures.append(decoded(latents[-1], codec, sizes.factor))
    maps = [list(step) for step in zip(*(owner_maps(w) for w in weaves))]
    on_pictures = [gradients(picture, sizes.factor) for picture in pictures]
    on_latents = seams([gradients(np.moveaxis(z, 0, -1), 1) for z in latents], maps, sizes.rounds)
    worst = maps[int(np.argmax([seam_ratio(on_pictures, owners_) for owners_ in maps]))]
    found = {
        "cost_over_minimum": counted.pixels / (sum(np.prod(w.layout.canvas) for w in weaves) * steps),
        "wall_s": statistics.median(times),
        **seams(on_pictures, maps, sizes.rounds),
        **{f"latent_{name}": value for name, value in on_latents.items()},
        **tell_apart(pictures, worst, sizes),
        **likeness(pictures, real, sizes),
        **variance_inside(pictures, maps[-1], sizes.factor),
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


def likeness(pictures: list[np.ndarray], real: list[Square], sizes: Sizes) -> dict:
    """KID of random crops to the real tiles of the squares that lent the masks, their variance within 8 px, and the share of
    their power in fine detail; of the real tiles too.
    """
    rng, tiles = np.random.default_rng(0), np.concatenate([square.tiles for square in real])
    side, crops = tiles.shape[1], []
    for number in range(sizes.kid_crops):
        picture = pictures[number % len(pictures)]
        y, x = (int(rng.integers(0, n)) for n in picture.shape[:2])
        rows, columns = ((o + np.arange(side)) % n for o, n in zip((y, x), picture.shape))
        crops.append(picture[np.ix_(rows, columns)])
    features = [load_extractor("efficientnet-lite0", "cpu").features(part) for part in (np.stack(crops), tiles)]
    each = [features[0][number :: len(pictures)] for number in range(len(pictures))]
    by_canvas = {"kid_by_canvas": [kid(part, features[1], 50, 0)["mean"] for part in each]}
    return {"kid": kid(*features, 50, 0)["mean"]} | by_canvas | detail(np.stack(crops))


def difference_interval(ours: dict, theirs: dict) -> list[float]:
    """95 % interval of the mean difference of KID between two covers of the same seeds and masks, by bootstrap over canvases."""
    difference = np.subtract(ours["kid_by_canvas"], theirs["kid_by_canvas"])
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


def variance_inside(pictures: list[np.ndarray], owners_: list[np.ndarray], factor: int) -> dict:
    """Mean variance within squares of 8 px that lie 16 px and more from the last step's borders, where any does."""
    values = []
    for picture, owner in zip(pictures, owners_):
        border = np.kron(np.logical_or(*borders(owner)), np.ones((factor, factor))) > 0
        near = maximum_filter(border, 33, mode="wrap")
        h, w = near.shape
        grey = picture.mean(2).reshape(h // 8, 8, w // 8, 8)
        values.append(grey.var((1, 3))[~near.reshape(h // 8, 8, w // 8, 8).any((1, 3))])
    values = np.concatenate(values)
    return {"local_variance_inside": float(values.mean())} if len(values) else {}
