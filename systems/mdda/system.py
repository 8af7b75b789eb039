"""Wang et al. 2022, MDDA: tiles that were changed so that a classifier errs, and what cleaning them before helps. By total variation, and by a denoiser."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from skimage.restoration import denoise_tv_chambolle
from torch.nn import functional as F

from histoloom.cluster import one_thread
from histoloom.config import Sample
from histoloom.config.learners import DEFAULT_LEARNERS
from histoloom.config.program import Program
from histoloom.data.drawn import write_drawn
from histoloom.data.mitoses import write_mitoses
from histoloom.data.rows import spread
from histoloom.data.seeds import item_seed
from histoloom.data.study_folder import Study
from histoloom.learners.classifier import Classifier
from histoloom.learners.learner import Training, learner_of
from histoloom.sampling.diffusion_model import DiffusionModel, load_unconditioned
from histoloom.sampling.drawn import Drawn, Rows
from histoloom.systems import Measured, paired_interval
from histoloom.training.run import TrainingRun

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
SEEDS = 2
PATIENTS, SIDE, TRAIN_TILES, EACH = 28, 96, 192, 96
"""EACH : held-out tiles. Half as many are of val, and a quarter meets the adversary who knows the defence."""
_PX = 64
EPS, STEPS, DRAWS = (4, 8), 10, 2
"""Of attacks: how far a value may change, in grey levels of 255; steps of PGD; draws of the defence's noise that the knowing adversary takes the mean of."""
SCALES, BLOCKS = (0.25, 0.5, 1.0, 2.0), 2
TOTAL_VARIATION = ((2.0, 0.02), (4.0, 0.05), (8.0, 0.1))
"""Deviation of the noise in grey levels, and the weight of total variation: those that are tried on val tiles."""
_ITERATIONS = 50
STRENGTHS = (0.05, 0.1, 0.2)
"""Of the denoiser's start, tried in the same way."""

Gradient = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Denoise = Callable[[np.ndarray, str], np.ndarray]
"""Tiles (n, h, w, 3) uint8 and the name of their noise, to tiles that were noised and denoised."""


class Tiles(NamedTuple):
    """images : (n, h, w, 3) uint8. truth : (n,) class numbers. groups : (n,)."""

    images: np.ndarray
    truth: np.ndarray
    groups: np.ndarray


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn patients with many nuclei or few; or mitotic figures, atypical or normal, whose slides are split."""
    if data is None:
        write_drawn(folder, PATIENTS, SIDE)
    else:
        write_mitoses(folder, data / "mitoses", _PX)


def attacked(gradient: Gradient, tiles: Tiles, eps: int, steps: int) -> np.ndarray:
    """Tiles that no value of differs by more than `eps` grey levels, and of which the classifier's loss is larger.

    steps : 1 for FGSM (Goodfellow et al. 2015); more for PGD, which starts at random within the bounds (Madry et al. 2018).
    """
    clean, truth = _to_torch(tiles.images), torch.from_numpy(tiles.truth)
    start = torch.empty_like(clean).uniform_(-eps, eps, generator=torch.Generator().manual_seed(0))
    x, size = (clean, float(eps)) if steps == 1 else (clean + start, 2.5 * eps / steps)
    for _ in range(steps):
        x = x + size * gradient(x.clamp(0, 255), truth).sign()
        x = torch.minimum(torch.maximum(x, clean - eps), clean + eps)
    return _to_tiles(x)


def of_classifier(classifier: Classifier, x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The gradient of the loss of tiles (n, 3, h, w) in grey levels."""
    found = []
    for part, labels in zip(x.split(16), truth.split(16)):
        shown = part.detach().requires_grad_(True)
        side = (classifier.image_px, classifier.image_px)
        logits = classifier.model(F.interpolate(shown / 255, side, mode="bilinear", antialias=True))
        found += torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), shown)
    return torch.cat(found)


def of_defended(classifier: Classifier, denoise: Denoise, x: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The gradient for one who knows the defence: at what it makes of the tiles, the mean over draws of its noise (Athalye et al. 2018: the
    defence counts as the identity in the backward pass)."""
    tiles = _to_tiles(x)
    each = [_to_torch(defended(tiles, denoise, f"adversary/{number}")) for number in range(DRAWS)]
    return torch.stack([of_classifier(classifier, shown, truth) for shown in each]).mean(0)


def defended(tiles: np.ndarray, denoise: Denoise, noise: str) -> np.ndarray:
    """Tiles cleaned at several scales: in each block all are noised and denoised, and each is joined with those beside it, half and half."""
    levels = [_resized(_to_torch(tiles), round(tiles.shape[1] * scale)) for scale in SCALES]
    for block in range(BLOCKS):
        names = [f"{noise}/{block}/{scale}" for scale in SCALES]
        clean = [_to_torch(denoise(_to_tiles(level), name)) for level, name in zip(levels, names)]
        levels = []
        for place, level in enumerate(clean):
            beside = [_resized(clean[n], level.shape[-1]) for n in (place - 1, place + 1) if 0 <= n < len(clean)]
            levels.append((level + torch.stack(beside).mean(0)) / 2)
    return _to_tiles(levels[SCALES.index(1.0)])


def untouched(tiles: np.ndarray, noise: str) -> np.ndarray:
    """Neither noised nor denoised, so that scales are joined and nothing else."""
    return tiles


def by_total_variation(deviation: float, weight: float, tiles: np.ndarray, noise: str) -> np.ndarray:
    """As the paper denoises (Rudin et al. 1992)."""
    rng = np.random.default_rng(item_seed(0, noise))
    noised = (tiles + rng.normal(0, deviation, tiles.shape)) / 255
    return _rounded(
        255
        * np.stack([denoise_tv_chambolle(tile, weight, max_num_iter=_ITERATIONS, channel_axis=-1) for tile in noised])
    )


@dataclass(frozen=True)
class ByDenoiser:
    """The study's denoiser, from a tile that was noised to a strength."""

    model: DiffusionModel
    config: Sample
    strength: float

    def __call__(self, tiles: np.ndarray, noise: str) -> np.ndarray:
        side, record = tiles.shape[1], self.model.record
        model = replace(self.model, record=replace(record, training=replace(record.training, shape=(3, side, side))))
        nulls = model.nulls(side, side)
        program = Program(start={"from": "tile", "strength": self.strength})
        out = []
        for begin in range(0, len(tiles), 64):
            part = tiles[begin : begin + 64]
            seeds = np.array([item_seed(number, noise) for number in range(begin, begin + len(part))], np.uint64)
            given = nulls.each(partial(_expanded, len(part)))
            drawn = Drawn(model, self.config, Rows(seeds, given, nulls, {"image": part}), program)
            out.append(drawn.samples[0]["image"])
        return np.concatenate(out)


def _expanded(count: int, value: torch.Tensor) -> torch.Tensor:
    return value.expand(count, *value.shape[1:])


def measure(studies: list[Study]) -> Measured:
    """Accuracy on held-out tiles under PGD at the larger bound, cleaned by the denoiser; the baseline is cleaned by total variation."""
    (study,) = studies
    ready = _ready(study)
    test = _tiles(study, "test")
    ways = {"joined": untouched} | {name: denoise for name, (denoise, _) in ready.ways.items()}
    classifiers = [ready.classifier, *(_classifier(study, ready.train, seed) for seed in range(1, SEEDS))]
    right: dict[str, list[np.ndarray]] = {}
    for classifier in classifiers:
        for name, correct in _of_classifier(classifier, test, ways).items():
            right.setdefault(name, []).append(correct)
    mean = {name: np.mean(of_seeds, 0) for name, of_seeds in right.items()}
    ours, theirs = (mean[f"pgd{EPS[-1]}_{name}"] for name in ("denoiser", "tv"))
    lost = mean["clean_denoiser"] - mean["clean"]
    low, high = paired_interval(lost, test.groups)
    return {
        "value": float(ours.mean()),
        "baseline": float(theirs.mean()),
        "difference_interval": paired_interval(ours - theirs, test.groups),
        "unit": f"accuracy under PGD, {EPS[-1]} of 255; baseline total variation",
        "n": len(ours),
        "more": {f"accuracy_{name}": float(values.mean()) for name, values in mean.items()}
        | {f"setting_{name}": float(setting) for name, (_, setting) in ready.ways.items()}
        | {"clean_change_low": low, "clean_change_high": high},
    }


def shown(study: Study) -> dict[str, np.ndarray]:
    """Held-out tiles, the same attacked, and cleaned in both ways."""
    test, ready = _tiles(study, "test"), _ready(study)
    few = Tiles(*(values[np.unique(np.linspace(0, len(values) - 1, 10).astype(int))] for values in test))
    classifier, chosen = ready.classifier, {name: denoise for name, (denoise, _) in ready.ways.items()}
    bad = attacked(partial(of_classifier, classifier), few, EPS[-1], STEPS)
    change = (128 + 8 * (bad.astype(int) - few.images)).clip(0, 255).astype(np.uint8)
    rows = {"held-out tiles": few.images, "cleaned by the denoiser": defended(few.images, chosen["denoiser"], "shown"),
            "attacked (PGD)": bad, "what was changed, eightfold": change,
            "attacked, cleaned by total variation": defended(bad, chosen["tv"], "shown"),
            "attacked, cleaned by the denoiser": defended(bad, chosen["denoiser"], "shown")}  # fmt: skip
    out = {}
    for name, tiles in rows.items():
        correct = _right(classifier, tiles, few.truth)
        title = name if "changed" in name else f"{name}: {correct.sum():.0f} of {len(correct)} told rightly"
        out[title] = tiles.repeat(2, 1).repeat(2, 2)
    return out


class Ready(NamedTuple):
    """The first classifier, and each defence at the setting that was chosen, with the setting."""

    train: Tiles
    classifier: Classifier
    ways: dict[str, tuple[Denoise, float]]


@cache
def _ready(study: Study) -> Ready:
    train = _tiles(study, "train")
    classifier = _classifier(study, train, 0)
    return Ready(train, classifier, _chosen(study, classifier, _tiles(study, "val")))


def _tiles(study: Study, split: str) -> Tiles:
    """Some, of each class alike."""
    store, classes, count = (
        study.real(),
        study.params.tile.labels.classes,
        {"train": TRAIN_TILES, "val": EACH // 2, "test": EACH}[split],
    )
    rows = store.rows()
    rows = rows[rows["split"] == split]
    chosen = pd.concat([spread(rows[rows["label"] == name], max(1, count // len(classes))) for name in classes])
    truth = np.array([classes.index(label) for label in chosen["label"]])
    return Tiles(store.read(chosen), truth, chosen["split_group"].to_numpy(str))


def _classifier(study: Study, train: Tiles, seed: int) -> Classifier:
    name, told = DEFAULT_LEARNERS["label"], study.params.uplift
    kind = learner_of(name, "label")
    with tempfile.TemporaryDirectory() as work, one_thread():
        run = TrainingRun(
            name, told.steps, kind.learning_rate, seed, Path(work), told.steps, warmup_steps=told.steps // 10
        )
        classes = tuple(study.params.tile.labels.classes)
        fitted = kind.fit(
            train.images, train.truth, Training(name, "label", classes, run, told.batch_size, told.image_px)
        )
    assert isinstance(fitted, Classifier)
    return fitted


def _chosen(study: Study, classifier: Classifier, val: Tiles) -> dict[str, tuple[Denoise, float]]:
    """Each way at the setting that is best on val tiles, in the mean of accuracy as they are and under PGD; and this setting."""
    bad, model = (
        attacked(partial(of_classifier, classifier), val, EPS[-1], STEPS),
        load_unconditioned(study.models, "cpu"),
    )
    tried: dict[str, list[tuple[Denoise, float]]] = {
        "tv": [(partial(by_total_variation, *both), both[1]) for both in TOTAL_VARIATION],
        "denoiser": [(ByDenoiser(model, study.params.sample, strength), strength) for strength in STRENGTHS],
    }

    def score(way: tuple[Denoise, float]) -> float:
        each = [_right(classifier, defended(tiles, way[0], "val"), val.truth).mean() for tiles in (val.images, bad)]
        return float(np.mean(each))

    return {name: max(ways, key=score) for name, ways in tried.items()}


def _of_classifier(classifier: Classifier, test: Tiles, ways: dict[str, Denoise]) -> dict[str, np.ndarray]:
    """By name, (n,) whether tiles are told rightly: as they are and attacked, cleaned and not; and where the adversary knows what cleans them."""
    unaware = partial(of_classifier, classifier)
    kinds = {"clean": test.images} | {
        f"{name}{eps}": attacked(unaware, test, eps, steps)
        for name, steps in (("fgsm", 1), ("pgd", STEPS))
        for eps in EPS
    }
    out = {}
    for kind, tiles in kinds.items():
        out[kind] = _right(classifier, tiles, test.truth)
        for way, denoise in ways.items():
            out[f"{kind}_{way}"] = _right(classifier, defended(tiles, denoise, "test"), test.truth)
    few = Tiles(*(values[np.unique(np.linspace(0, len(values) - 1, max(2, EACH // 4)).astype(int))] for values in test))
    for way, denoise in ways.items():
        bad = attacked(partial(of_defended, classifier, denoise), few, EPS[-1], STEPS)
        out[f"knowing{EPS[-1]}_{way}"] = _right(classifier, defended(bad, denoise, "test"), few.truth)
    return out


def _right(classifier: Classifier, tiles: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return (classifier.predict(tiles).argmax(1) == truth).astype(float)


def _to_torch(tiles: np.ndarray) -> torch.Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) in grey levels."""
    return torch.from_numpy(tiles).permute(0, 3, 1, 2).float()


def _to_tiles(x: torch.Tensor) -> np.ndarray:
    return _rounded(x.permute(0, 2, 3, 1).numpy())


def _rounded(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)


def _resized(x: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(x, (side, side), mode="bilinear", antialias=True) if side != x.shape[-1] else x
