"""DDIM with a recurrent residual UNet for white cells: how near its cells come to held-out ones, beside the plain UNet's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.data.store import TileStore
from histoloom.data.study_folder import Study
from histoloom.quality.kid import kid, kid_difference
from histoloom.quality.metrics import precision_recall
from histoloom.systems import Measured

STAGES = ("tile", "train_encoders", "train_autoencoder", "encode", "train_denoiser", "plan", "sample")
SIDE, CLASSES, DRAWN = 32, 4, 480
_GLASS, _CYTOPLASM, _NUCLEUS = (np.array(colour, float) for colour in ((236, 226, 224), (196, 172, 196), (92, 58, 132)))


def prepare(folder: Path, data: Path | None, fold: int) -> None:
    """Drawn cells of four shapes of nucleus; or the real ones' first set without its fifth class, which has one picture."""
    images, labels = _draw() if data is None else _read(data)
    order = np.random.default_rng(0).permutation(len(images))
    split = np.where(np.arange(len(images)) % 10 < 6, "train", np.where(np.arange(len(images)) % 10 < 7, "val", "test"))
    (folder / "data").mkdir(parents=True, exist_ok=True)
    np.savez(folder / "data/cells.npz", images=images[order], labels=labels[order], split=split)


def _draw() -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(DRAWN) % CLASSES
    return np.stack([_cell(np.random.default_rng(number), kind) for number, kind in enumerate(labels.tolist())]), labels


def _cell(rng: np.random.Generator, kind: int) -> np.ndarray:
    """A cell on glass, (SIDE, SIDE, 3) uint8. kind : 0 one round lobe, 1 two that nearly coincide, 2 three in a row, 3 two apart."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    body = np.hypot(y - rng.uniform(-1, 1), (x - rng.uniform(-1, 1)) * rng.uniform(0.9, 1.1)) < rng.uniform(10.5, 12.5)
    turn, apart = rng.uniform(0, 2 * np.pi), (0.0, 3.0, 4.5, 5.0)[kind]
    places = {0: (0.0,), 1: (-1.0, 1.0), 2: (-1.0, 0.0, 1.0), 3: (-1.0, 1.0)}[kind]
    radius = (6.5, 4.8, 3.0, 3.4)[kind] * rng.uniform(0.9, 1.1)
    nucleus = np.zeros((SIDE, SIDE), bool)
    for place in places:
        bend = turn + place * rng.uniform(0.0, 0.5)
        nucleus |= np.hypot(y - place * apart * np.sin(bend), x - place * apart * np.cos(bend)) < radius
    grain = gaussian_filter(rng.standard_normal((SIDE, SIDE)), 0.8)[..., None] * 14
    soft = [gaussian_filter(part.astype(float), 0.6)[..., None] for part in (body, nucleus & body)]
    light = _GLASS + soft[0] * (_CYTOPLASM - _GLASS) + soft[1] * (_NUCLEUS - _CYTOPLASM) + soft[0] * grain
    return (light + rng.normal(0, 1.5, light.shape)).clip(0, 255).astype(np.uint8)


def _read(data: Path) -> tuple[np.ndarray, np.ndarray]:
    table = pd.read_csv(data / "Class Labels of dataset1.csv")
    number, kind = (table.iloc[:, place].to_numpy() for place in (0, 1))
    found = [(n, k) for n, k in zip(number, kind) if 1 <= k <= CLASSES]
    pictures = [Image.open(data / f"dataset1/{n:03d}_img.png").convert("RGB") for n, _ in found]
    small = [np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX)) for picture in pictures]
    return np.stack(small), np.array([k - 1 for _, k in found])


def measure(studies: list[Study]) -> Measured:
    """KID of the cells of either network against held-out ones, and their recall."""
    (study,) = studies
    store, synthetic = study.real(), TileStore(study.synthetic)
    tower = load_extractor("efficientnet-lite0", "cpu")
    rows, made = store.rows(), synthetic.rows()
    real = tower.features(store.read(rows[rows["split"] == "test"]))
    train = tower.features(store.read(rows[rows["split"] == "train"]))
    recurrent, plain = (
        tower.features(synthetic.read(made[made["request"] == name])) for name in ("recurrent", "plain")
    )
    found = {name: precision_recall(real, of, 3) for name, of in (("recurrent", recurrent), ("plain", plain))}
    low, high = kid_difference(recurrent, plain, real, 0)
    return {
        "value": kid(recurrent, real, 50, 0)["mean"],
        "baseline": kid(plain, real, 50, 0)["mean"],
        "difference_interval": (low, high),
        "unit": "KID in EfficientNet-Lite0's features, less is better",
        "n": len(recurrent),
        "more": {
            "kid_of_train_cells": kid(train, real, 50, 0)["mean"],
            **{
                f"{measure}_{name}": values[measure]
                for name, values in found.items()
                for measure in ("precision", "recall")
            },
        },
    }
