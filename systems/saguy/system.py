"""Saguy et al. 2024: patches of microtubules that a diffusion model makes, to train the restoration of blurred ones."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence
from scipy.ndimage import gaussian_filter, maximum_filter

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.learners.regression import Regression, fit_regression
from histoloom.quality.fidelity import Fidelity, fidelity
from histoloom.quality.kid import kid
from histoloom.systems import Measured, paired_interval
from histoloom.training.run import TrainingRun

STAGES = (
    "tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample", "sample_slides", "tile_slides",
    "train_filters", "filter",
)  # fmt: skip
SEEDS, STEPS, PAIRS = 2, 250, 384
"""Of the restoration: networks of each kind, steps, and pairs, each patch with as many noises as that takes."""
_SIDE, _FIELD, _CUT = 32, 96, 16
_FIELDS = {"train": 6, "val": 3, "test": 6}
_DENSITY, _PRECISION, _PIXEL, _LIGHT = 8.0, 0.6, 0.8, 45.0
"""Localisations per px of a filament; deviations of their places and of the Gaussian that draws them, px; grey levels of one."""
_PERSISTENCE = 60.0
"""Px over which a filament forgets its direction."""
KINDS = ("widefield", "sparse")
_NM, _FINE = 100.0, 4
"""Of the demo stack: its pixels, nm, and how many of ours make one."""


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Patches of drawn fields of microtubules; or of what we localise in the demo stack, whose one field is divided into three regions."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    if data is None:
        fields = [(split, [draw_field(rng, microtubules)]) for split, count in _FIELDS.items() for _ in range(count)]
    else:
        fields = _regions(reconstruction(read_stack(data / "testStack_SimulatedMicrotubules.tif")))
    images, names, splits = [], [], []
    for number, (split, pictures) in enumerate(fields):
        cut = np.concatenate([patches(picture, _CUT if split == "train" else _SIDE) for picture in pictures])
        images.append(cut)
        names += [f"f{number:02d}"] * len(cut)
        splits += [split] * len(cut)
    place = folder / "data/patches.npz"
    np.savez(place, images=np.concatenate(images), patient_id=np.array(names), split=np.array(splits))


def patches(field: np.ndarray, step: int) -> np.ndarray:
    """(h, w) to (n, side, side)."""
    views = np.lib.stride_tricks.sliding_window_view(field, (_SIDE, _SIDE))[::step, ::step]
    return views.reshape(-1, _SIDE, _SIDE)


def draw_field(rng: np.random.Generator, model, side: int = _FIELD, filaments: int = 9) -> np.ndarray:
    """(side, side) uint8 of localisations along filaments. model : draws a filament's points (k, 2), half a px apart."""
    lines = [line for _ in range(filaments) for line in model(rng, side)]
    points = np.concatenate(lines)
    points = np.repeat(points, rng.poisson(_DENSITY / 2, len(points)), 0)
    return rendered(points + rng.normal(0, _PRECISION, points.shape), side)


def rendered(points: np.ndarray, side: int) -> np.ndarray:
    """Points (k, 2), px, as a picture (side, side) uint8: a histogram of localisations, smoothed by a Gaussian."""
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=side, range=((0, side), (0, side)))[0]
    return (_LIGHT * gaussian_filter(counts, _PIXEL)).clip(0, 255).round().astype(np.uint8)


def microtubules(rng: np.random.Generator, side: int) -> list[np.ndarray]:
    """Worm-like chains, some in bundles: along a chain the direction walks at random, by sqrt(ds / persistence length) a step of ds.

    Neighbours of a bundle run beside it, some px apart.
    """
    steps = int(rng.uniform(0.6, 1.6) * side / 0.5)
    turn = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, np.sqrt(0.5 / _PERSISTENCE), steps))
    along = np.stack([np.cos(turn), np.sin(turn)], 1)
    middle = np.cumsum(0.5 * along, 0)
    middle += rng.uniform(0, side, 2) - middle[steps // 2]
    normal = np.stack([-along[:, 1], along[:, 0]], 1)
    beside = np.cumsum(rng.uniform(3, 6, rng.choice([0, 1, 2], p=[0.6, 0.25, 0.15])))
    return [middle, *(middle + apart * normal for apart in beside)]


def straight_lines(rng: np.random.Generator, side: int) -> list[np.ndarray]:
    """A straight segment at a place and in a direction of chance, as long as the filaments: the mathematical lines."""
    steps, turn = int(rng.uniform(0.6, 1.6) * side / 0.5), rng.uniform(0, 2 * np.pi)
    along = (np.arange(steps) - steps / 2)[:, None] * 0.5 * np.array([np.cos(turn), np.sin(turn)])
    return [along + rng.uniform(0, side, 2)]


def lines_like(train: np.ndarray, count: int, seed: int) -> np.ndarray:
    """As many patches of straight lines, of fields as bright as these patches (n, h, w) on the whole."""
    rng = np.random.default_rng([seed, 7])
    one = np.mean([draw_field(rng, straight_lines, filaments=12).mean() for _ in range(8)]) / 12
    filaments = max(1, round(train.mean() / one))
    fields = -(-count // (_FIELD // _SIDE) ** 2)
    drawn = [patches(draw_field(rng, straight_lines, filaments=filaments), _SIDE) for _ in range(fields)]
    return np.concatenate(drawn)[:count]


def read_stack(path: Path) -> np.ndarray:
    """Frames (t, h, w) float of a TIFF."""
    with Image.open(path) as stack:
        frames = []
        for frame in ImageSequence.Iterator(stack):
            frames.append(np.asarray(frame, float))
    return np.stack(frames)


def localised(frames: np.ndarray) -> list[np.ndarray]:
    """Of each frame the places (k, 2), px, of its bright spots: maxima of the smoothed frame well over its noise.

    Along each axis a parabola through the logarithms of three pixels tells where between them a Gaussian spot lies.
    """
    background = np.median(frames)
    noise = 1.4826 * np.median(np.abs(frames - background))
    out = []
    for frame in frames:
        smooth = gaussian_filter(frame - background, 1.0)
        rows, columns = np.nonzero((smooth == maximum_filter(smooth, 3)) & (smooth > 3 * noise))
        inside = (rows > 0) & (columns > 0) & (rows < len(frame) - 1) & (columns < len(frame) - 1)
        places = []
        for row, column in zip(rows[inside], columns[inside]):
            lines = smooth[row - 1 : row + 2, column], smooth[row, column - 1 : column + 2]
            before, at, after = np.log(np.maximum(lines, 1.0)).T
            offset = 0.5 * (before - after) / np.minimum(before - 2 * at + after, -1e-6)
            places.append(np.array([row, column]) + 0.5 + offset.clip(-0.5, 0.5))
        out.append(np.array(places).reshape(-1, 2))
    return out


def reconstruction(frames: np.ndarray) -> np.ndarray:
    """What is localised in a stack, (h, w) uint8, at a quarter of its pixels. It is our estimate, and no truth."""
    points = np.concatenate(localised(frames)) * _FINE
    side = frames.shape[1] * _FINE
    counts = np.histogram2d(points[:, 0], points[:, 1], bins=side, range=((0, side), (0, side)))[0]
    smooth = gaussian_filter(counts, 1.0)
    return (255 * smooth / np.percentile(smooth[smooth > smooth.max() / 50], 95)).clip(0, 255).round().astype(np.uint8)


def _regions(field: np.ndarray) -> list[tuple[str, list[np.ndarray]]]:
    """Strips of the one field for train, val and test, with a gap between them."""
    half, gap = len(field) // 2, _SIDE // 4
    return [
        ("train", [field[: half - gap]]),
        ("val", [field[half + gap :, : half // 2]]),
        ("test", [field[half + gap :, half // 2 + gap :]]),
    ]


def partner(truth: np.ndarray, kind: str, seed: int) -> np.ndarray:
    """What a microscope would have shown of patches (n, h, w, 3) uint8, the same: a widefield picture, blurred and noisy; or few localisations."""
    rng, grey = np.random.default_rng([seed, KINDS.index(kind)]), truth[..., 0].astype(float)
    if kind == "widefield":
        light = 40 * np.stack([gaussian_filter(one, 2.5) for one in grey]) / 255 + 2
        shown = rng.poisson(light) / 30 * 255
    else:
        shown = np.stack([gaussian_filter(one, 0.8) for one in rng.poisson(grey / 255 * 0.4).astype(float)]) * 400
    return np.repeat(shown.clip(0, 255).round().astype(np.uint8)[..., None], 3, -1)


def restorer(truth: np.ndarray, kind: str, seed: int) -> Regression:
    """A network that is trained on pairs of these patches and their partners, each time with other noise."""
    wanted = truth[np.resize(np.random.default_rng(seed).permutation(len(truth)), PAIRS)]
    with tempfile.TemporaryDirectory() as place:
        run = TrainingRun("restoration", STEPS, 1e-3, seed, Path(place), STEPS)
        return fit_regression(partner(wanted, kind, 100 + seed), wanted, run, 16)


def truths(study: Study) -> dict[str, np.ndarray]:
    """Patches to train on, by where they are from: made ones that are no near copies, as many of straight lines, and the real train patches."""
    store, made = study.real(), TileStore(study.synthetic, study.verdicts)
    rows = made.rows()
    real, kept = store.read(store.rows(split="train")), made.read(rows[rows["accepted"]])
    lines = lines_like(real[..., 0], len(kept), 0)
    return {"made": kept, "lines": np.repeat(lines[..., None], 3, -1), "real": real}


def measure(studies: list[Study]) -> Measured:
    """PSNR of held-out patches that were restored by networks of made patches, beside networks of straight lines, and of real train patches."""
    (study,) = studies
    store, rows = study.real(), TileStore(study.synthetic, study.verdicts).rows()
    test, sources = store.rows(split="test"), truths(study)
    truth = store.read(test)
    seen = {kind: partner(truth, kind, 1) for kind in KINDS}
    found = {(name, kind): _restored(of, kind, seen[kind], truth) for name, of in sources.items() for kind in KINDS}
    found |= {("as it is", kind): fidelity(seen[kind], truth) for kind in KINDS}
    made, lines, real = (found[name, "widefield"].psnr for name in sources)
    tower = load_extractor("efficientnet-lite0", "cpu")
    features = {name: tower.features(of[:PAIRS]) for name, of in sources.items()}
    held_out, subsets = tower.features(truth), min(20, len(truth) // 2)
    groups = test["split_group"]
    return {
        "value": float(made.mean()),
        "baseline": float(lines.mean()),
        "difference_interval": paired_interval(made - lines, groups),
        "unit": "dB PSNR of restored widefield patches",
        "n": len(truth),
        "more": {
            **{
                f"{measure}_{kind}_{name.replace(' ', '_')}": float(getattr(of, measure).mean())
                for (name, kind), of in found.items()
                for measure in Fidelity._fields
            },
            "psnr_made_less_real_low": paired_interval(made - real, groups)[0],
            "psnr_made_less_real_high": paired_interval(made - real, groups)[1],
            **{f"kid_{name}": kid(of, held_out, subsets, 0)["mean"] for name, of in features.items()},
            "refused_as_near_copies": float((~rows["accepted"]).mean()),
            "made": float(len(rows)),
        },
    }


def _restored(source: np.ndarray, kind: str, seen: np.ndarray, truth: np.ndarray) -> Fidelity:
    """The mean over seeds, patch by patch; of sparse patches one seed."""
    seeds = range(SEEDS if kind == "widefield" else 1)
    each = [fidelity(restorer(source, kind, seed)(seen), truth) for seed in seeds]
    return Fidelity(*np.mean(each, 0))


def shown(study: Study) -> dict[str, np.ndarray]:
    """Patches of each source, and held-out ones that were restored."""
    store, sources = study.real(), truths(study)
    truth = store.read(spread(store.rows(split="test"), 10))
    seen = partner(truth, "widefield", 1)
    restored = {f"restored, trained on {name}": restorer(of, "widefield", 0)(seen) for name, of in sources.items()}
    few = {
        f"patches: {name}": of[np.unique(np.linspace(0, len(of) - 1, 10).astype(int))] for name, of in sources.items()
    }
    every = few | {"held out": truth, "as a widefield microscope shows them": seen} | restored
    return {name: tiles.repeat(2, 1).repeat(2, 2) for name, tiles in every.items()}
