"""The embedding of a tile as a vector: any tower of timm or open_clip, or the packaged EfficientNet-Lite0."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from histoloom.conditions.feature_extractors import Extractor
from histoloom.config.denoiser_record import Shape


@dataclass(frozen=True)
class ImageEncoder:
    """mean, scale : of the train split's features, (d,)."""

    tower: Extractor
    mean: np.ndarray
    scale: np.ndarray
    name = "image"
    shape: ClassVar[Shape] = "vector"

    @property
    def channels(self) -> tuple[str, ...]:
        return (*(f"{self.tower.name} {index}" for index in range(self.tower.size)), "given")

    def arrays(self, rows: pd.DataFrame, tiles: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
        values = (self.tower.features(tiles("image")) - self.mean) / self.scale
        return {self.name: np.concatenate([values, np.ones((len(rows), 1))], 1).astype(np.float32)}
