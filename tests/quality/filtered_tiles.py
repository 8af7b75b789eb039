"""Tiles of two stains, and filters fitted to them, that the tests of filters share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from histoloom.conditions.feature_extractors import load_extractor
from histoloom.config import Params
from histoloom.data.store import TileStore
from histoloom.quality.filters.base import Fitting, Tiles
from tests.build import OTHER_STAINS, STAINS, make_part, tile_rows, tissue_picture
from tests.stages import study_of

SIDE = 32
LABELS = ("plain", "other")
USE = ("quality", "distance", "label", "mask", "text", "rna", "near_copy")
FRACTION = 0.12
"""What each filter may reject of real tiles."""


def make_tiles(seed: int, count: int = 60) -> Tiles:
    """Tiles of two stains, which their labels name, and masks of where they are dark."""
    pictures = [tissue_picture(512, 512, seed * 10 + n, stains) for n, stains in enumerate((STAINS, OTHER_STAINS))]
    rng = np.random.default_rng(seed)
    images, labels = [], []
    for number in range(count):
        y, x = rng.integers(120, 360, 2)
        images.append(pictures[number % 2][y : y + SIDE, x : x + SIDE])
        labels.append(LABELS[number % 2])
    images = np.stack(images)
    rows = pd.DataFrame(
        {
            "tile_id": [f"{seed}-{n}" for n in range(count)],
            "label": labels,
            "caption": labels,
            "rna": labels,
            "masked": True,
            "split_group": [f"p{n // 4}" for n in range(count)],
        }
    )
    masks = (images.mean(-1) < 140).astype(np.uint8)
    return Tiles(images, rows, {"mask": masks}.__getitem__, load_extractor("efficientnet-lite0", "cpu"))


def part_of(folder: Path, tiles: Tiles) -> pd.DataFrame:
    """Tiles as a store; its rows."""
    rows = tile_rows(len(tiles), caption=tiles.rows["caption"].tolist())
    make_part(folder, "part", rows, tiles.images)
    return TileStore(folder).rows()


def fitting_of(train: Tiles, params: Params | None, folder: Path) -> Fitting:
    def batches() -> list[np.ndarray]:
        return [train.images[:40], train.images[40:]]

    return Fitting(train, train.rows, batches, study_of(params, folder), folder / "work", "cpu")


def tiles_of_patients(sharpness: list[float], seed: int) -> Tiles:
    """Eight tiles of each patient, whose slides were scanned so sharply (blurred by so many px)."""
    parts = []
    for number, blur in enumerate(sharpness):
        part = make_tiles(seed + number, 8)
        images = np.stack([gaussian_filter(image, (blur, blur, 0)) for image in part.images])
        parts.append((images, part.rows.assign(split_group=f"{seed}-{number}")))
    rows = pd.concat([rows for _, rows in parts], ignore_index=True)
    return Tiles(np.concatenate([images for images, _ in parts]), rows, lambda _: None, part.extractor)


def with_images(tiles: Tiles, images: np.ndarray) -> Tiles:
    return Tiles(images, tiles.rows, tiles.read, tiles.extractor)
