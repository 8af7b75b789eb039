"""Chen et al., the cell cycle: does a classifier that also learns from synthetic cells of the rare phase err less when it says "mitosis"?"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter
from torch import nn

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.learners.classifier import Classifier
from histoloom.learners.learner import Training
from histoloom.quality.kid import kid
from histoloom.systems import Measured
from histoloom.training.run import TrainingRun

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
PHASES = ("interphase", "prophase", "mitosis")
RARE = "mitosis"
SEEDS = 8
STEPS = 250
_SIDE = 40
_DRAWN = {"interphase": 720, "prophase": 420, "mitosis": 60}
_OF_JURKAT = {
    "G1": "interphase", "S_phase": "interphase", "G2": "interphase", "Prophase": "prophase", "Metaphase": "mitosis",
    "Anaphase": "mitosis", "Telophase": "mitosis",
}  # fmt: skip
_WINDOW = (0.1, 99.9)


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn cells, of which one in twenty divides; or the Jurkat cells. Of each phase two in five are to train on, of Jurkat cells every other."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    if data is None:
        phases = np.repeat([*_DRAWN], [*_DRAWN.values()])
        train = _spread(phases, 2, 5)
        rng = np.random.default_rng(0)
        images = np.stack([draw_cell(rng, phase) for phase in phases])
    else:
        with np.load(data / "cells.npz") as cells:
            raw, phases = cells["x"], np.array([_OF_JURKAT[name] for name in cells["y"]])
            train = _spread(cells["y"], 1, 2)
        images = windowed(raw, train)
    np.savez(folder / "data/cells.npz", images=images, label=phases, split=np.where(train, "train", "test"))


def _spread(names: np.ndarray, of: int, among: int) -> np.ndarray:
    """(n,) Whether a cell is to train on: the first `of` of each `among` that follow one another under a name."""
    count = pd.Series(names).groupby(names).cumcount().to_numpy()
    return count % among < of


def windowed(raw: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Channels (n, 3, h, w) of 16 bits as pictures (n, h, w, 3) of 8: each between two percentiles of all train cells' pixels."""
    low, high = np.percentile(raw[train].transpose(1, 0, 2, 3).reshape(3, -1), _WINDOW, axis=1)[..., None, None]
    return ((raw - low) / (high - low) * 255).clip(0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1)


def draw_cell(rng: np.random.Generator, phase: str) -> np.ndarray:
    """A cell (h, w, 3) uint8 in bright field, DNA stain and dark field.

    In interphase its nucleus is round, in prophase larger, brighter and mottled, in mitosis a dense plate, or two. Some plates are seen from above and
    are then nearly round, and some nuclei of the other phases are long or bright: without these nobody would err.
    """
    y, x = np.mgrid[:_SIDE, :_SIDE] - (_SIDE - 1) / 2 - rng.normal(0, 1, (2, 1, 1))
    turn = rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    grain = [gaussian_filter(rng.standard_normal((_SIDE, _SIDE)), sigma) * sigma * 3.5 for sigma in (2.5, 1.5, 0.7)]
    if phase == RARE:
        length, width = rng.uniform(6, 9), rng.uniform(2, 5)
        apart = rng.choice([0.0, rng.uniform(3, 7)], p=[0.7, 0.3])
        nucleus = np.minimum(*(np.hypot(along / length, (across - side * apart) / width) for side in (-1, 1)))
        bright, mottled, radius = rng.uniform(0.55, 0.95), 0.15, rng.uniform(10, 14) + apart / 3
    else:
        early = phase == "prophase"
        size, longer = (rng.uniform(7.0, 10.0) if early else rng.uniform(5.5, 8.5)), rng.uniform(1.0, 1.6)
        nucleus = np.hypot(along / (size * longer**0.5), across / (size / longer**0.5))
        bright, mottled = (rng.uniform(0.4, 0.75), 0.3) if early else (rng.uniform(0.25, 0.65), 0.1)
        radius = size + rng.uniform(3, 5)
    blur = rng.uniform(0.7, 2.2)
    dna = gaussian_filter((nucleus < 1) * bright * (1 + mottled * grain[1]), blur)
    edge = np.hypot(x, y) - radius
    field = 0.55 - 0.35 * np.exp(-((edge / 1.5) ** 2)) + (edge < 0) * (0.1 + 0.06 * grain[2])
    dark = 0.03 + (edge < 0) * (0.1 + 0.15 * grain[0].clip(0))
    picture = np.stack([field, dna, dark], -1) + rng.normal(0, 0.015, (_SIDE, _SIDE, 3))
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


class SmallNetwork(nn.Module):
    """Pictures (b, 3, h, w) in [0, 1] to logits: three convolutions, each after the first at half the side of the one before."""

    def __init__(self, classes: int):
        super().__init__()
        sizes = ((3, 16), (16, 32), (32, 64))
        levels = [[nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(4, o), nn.SiLU(), nn.MaxPool2d(2)] for i, o in sizes]
        self.layers = nn.Sequential(*(m for level in levels for m in level), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.out = nn.Linear(64, classes)

    def forward(self, images):
        return self.out(self.layers(2 * images - 1))


class OfCells(Classifier):
    """Learns phases from scratch: cells of 40 px in three channels of their own are little like the pictures of ImageNet."""

    learning_rate = 2e-3

    @staticmethod
    def network(name: str, classes: int) -> nn.Module:
        return SmallNetwork(classes)


def measure(studies: list[Study]) -> Measured:
    """Of held-out cells that are called mitosis, the fraction that is; by classifiers of real and synthetic cells, and of real ones alone."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    rows, made = store.rows(), synthetic.rows()
    train, test = (rows[rows["split"] == split] for split in ("train", "test"))
    made = made[made["purpose"] == "augment"]
    images, added, held_out = store.read(train), synthetic.read(made), store.read(test)
    labels, truth = _numbers(train["label"]), _numbers(test["label"])
    every, of_every = np.concatenate([images, added]), np.r_[labels, _numbers(made["label"])]
    learners = {
        "real": [_fitted(images, labels, seed) for seed in range(SEEDS)],
        "both": [_fitted(every, of_every, seed) for seed in range(SEEDS)],
    }
    found = {arm: _called(of_arm, held_out) for arm, of_arm in learners.items()}
    of_seeds = {arm: {name: rates(called, truth, k) for k, name in enumerate(PHASES)} for arm, called in found.items()}
    rare, tower = PHASES.index(RARE), load_extractor("efficientnet-lite0", "cpu")
    features = [tower.features(part) for part in (added, images[labels == rare], held_out[truth == rare])]
    return {
        "value": float(np.mean(of_seeds["both"][RARE][0])),
        "baseline": float(np.mean(of_seeds["real"][RARE][0])),
        "difference_interval": precision_interval(found["both"] == rare, found["real"] == rare, truth == rare),
        "unit": f"precision (PPV) of {RARE}, mean of {SEEDS} seeds",
        "n": len(truth),
        "more": {
            **{
                f"{what}_{name}_{arm}": float(np.mean(of_phase[name][number]))
                for arm, of_phase in of_seeds.items()
                for name in PHASES
                for number, what in enumerate(("precision", "recall"))
            },
            **{f"precision_std_of_seeds_{arm}": float(np.std(of_seeds[arm][RARE][0])) for arm in found},
            "synthetic": float(len(made)),
            "synthetic_read_as_asked": float((_called(learners["real"], added) == rare).mean()),
            "kid_of_synthetic": kid(features[0], features[2], 20, 0)["mean"],
            "kid_of_train": kid(features[1], features[2], 20, 0)["mean"],
        },
    }


def _numbers(names: pd.Series) -> np.ndarray:
    return names.map({name: number for number, name in enumerate(PHASES)}).to_numpy(np.int64)


def _fitted(images: np.ndarray, labels: np.ndarray, seed: int) -> OfCells:
    """A classifier that sees phases alike often, for as many steps whatever its cells."""
    with tempfile.TemporaryDirectory() as place:
        run = TrainingRun("classifier", STEPS, OfCells.learning_rate, seed, Path(place), STEPS)
        training = Training("cells", "label", PHASES, run, batch_size=32, image_px=_SIDE)
        return OfCells.fit(images, labels, training)


def _called(learners: list[OfCells], images: np.ndarray) -> np.ndarray:
    """Class numbers (seeds, n)."""
    return np.stack([learner.predict(images).argmax(1) for learner in learners])


def rates(called: np.ndarray, truth: np.ndarray, phase: int) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of a phase, (seeds,) each, of class numbers (seeds, n). Where no cell is called so, precision is 0."""
    right = ((called == phase) & (truth == phase)).sum(1)
    return right / np.maximum((called == phase).sum(1), 1), right / max((truth == phase).sum(), 1)


def precision_interval(
    ours: np.ndarray, theirs: np.ndarray, truth: np.ndarray, draws: int = 2000
) -> tuple[float, float]:
    """95 % of the difference of two mean precisions, the held-out cells drawn with replacement, the same for both: a cell has no patient here.

    A precision is a ratio of two counts, so it can't be had from differences of single cells.

    ours, theirs : (seeds, n) what was called the phase. truth : (n,) what is.
    """
    weights = np.random.default_rng(0).multinomial(len(truth), np.full(len(truth), 1 / len(truth)), draws)
    ppv = [(weights @ (of & truth).T / np.maximum(weights @ of.T, 1)).mean(1) for of in (ours, theirs)]
    low, high = np.percentile(ppv[0] - ppv[1], [2.5, 97.5])
    return float(low), float(high)
