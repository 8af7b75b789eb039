"""A picture that lies over the tile, as a map: the tile itself, degraded or as it is, for what is to be made of it.

So a model learns to enlarge (Saharia et al. 2022, SR3), to restore, or to find masks in a picture.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from histoloom.conditions.condition import Arrays, Condition, FitJob, Fitted, ReadTiles, Source
from histoloom.config import Params
from histoloom.config.channels import NOISE, detailed
from histoloom.config.train_encoders import Degrade
from histoloom.data.seeds import item_seed

_COLOURS = ("red", "green", "blue")


@dataclass(frozen=True)
class PictureCondition(Condition):
    """channel_names : of each colour, in each of detail x detail cells of a pixel of the data; of the noise that training adds, where it
    does (`train_denoiser.augment`). px : its side."""

    channel_names: tuple[str, ...]
    px: int
    degrade: Degrade
    name = "picture"
    shape = "map"
    reads = ("image",)

    @property
    def channels(self) -> tuple[str, ...]:
        return self.channel_names

    @classmethod
    def known_channels(cls, params: Params) -> tuple[str, ...]:
        told = (NOISE,) if cls.name in params.train_denoiser.augment else ()
        return detailed((*_COLOURS, *told), params.factor)

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        return Fitted({"degrade": job.params.train_encoders.picture.model_dump(mode="json")})

    @classmethod
    def load(cls, source: Source) -> Self:
        return cls(source.channels, source.px, Degrade(**source.facts["degrade"]))

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        """(n, channels, px, px) float16 in [-1, 1]; in every picture some value differs from the null, which is zeros."""
        shown = pictures(tiles(self.reads[0]), self.degrade, rows["tile_id"])
        return {self.name: picture_map(shown, self.channel_names, self.px, self.px)}


def picture_map(images: np.ndarray, channels: tuple[str, ...], rows: int, columns: int) -> np.ndarray:
    """Pictures (n, h, w, 3) uint8 to the map (n, channels, rows, columns) float16 in [-1, 1]."""
    n, height, _, colours = images.shape
    detail = height // rows
    cells = images.reshape(n, rows, detail, columns, detail, colours).transpose(0, 5, 2, 4, 1, 3)
    values = cells.reshape(n, colours * detail * detail, rows, columns).astype(np.float32) / 127.5 - 1
    told = np.zeros((n, len(channels) - values.shape[1], rows, columns))  # of noise, of which there is none yet
    return np.concatenate([values, told], 1).astype(np.float16)


def pictures(images: np.ndarray, how: Degrade, names: Iterable[str]) -> np.ndarray:
    """What a model is given of tiles (n, h, w, 3) uint8, shaped as these. names : their rows' ids, on which the noise depends."""
    return np.stack([degraded(image, how, item_seed(0, f"picture/{name}")) for image, name in zip(images, names)])


def degraded(image: np.ndarray, how: Degrade, seed: int) -> np.ndarray:
    """A tile (h, w, 3) uint8 after blur, loss of resolution, noise and compression, in this order."""
    values = image.astype(np.float32)
    if how.blur_px:
        values = gaussian_filter(values, (how.blur_px, how.blur_px, 0))
    if how.factor > 1:
        h, w, _ = values.shape
        small = values.reshape(h // how.factor, how.factor, w // how.factor, how.factor, 3).mean((1, 3))
        planes = [
            np.asarray(Image.fromarray(small[..., colour]).resize((w, h), Image.Resampling.BICUBIC))
            for colour in range(3)
        ]
        values = np.stack(planes, -1)
    if how.noise:
        values = values + how.noise * np.random.default_rng(seed).standard_normal(values.shape, dtype=np.float32)
    out = values.clip(0, 255).round().astype(np.uint8)
    if how.jpeg_quality is None:
        return out
    held = io.BytesIO()
    Image.fromarray(out).save(held, "JPEG", quality=how.jpeg_quality)
    return np.asarray(Image.open(held))
