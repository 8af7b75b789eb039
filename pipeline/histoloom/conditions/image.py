"""The embedding of a tile as a vector: any tower of timm or open_clip, the packaged EfficientNet-Lite0, or an encoder trained here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from histoloom.conditions.condition import Arrays, Condition, FitJob, Fitted, ReadTiles, Source
from histoloom.conditions.feature_extractors import Extractor, load_extractor
from histoloom.conditions.tile_encoder import load_as_extractor
from histoloom.config.extractors import OF_NO_PATIENT
from histoloom.data.lineage import Lineage
from histoloom.data.rows import spread

_MOST_FIT_TILES = 2000
OWN = "image"
"""The source of an encoder that lies beside the facts, in a folder of this name."""


@dataclass(frozen=True)
class ImageCondition(Condition):
    """mean, scale : of the train split's features, (d,)."""

    tower: Extractor
    mean: np.ndarray
    scale: np.ndarray
    name = "image"
    shape = "vector"
    reads = ("image",)

    @classmethod
    def fit(cls, job: FitJob) -> Fitted:
        """The mean and scale of a tower's features over train tiles. An encoder that is trained has `training.fit_condition`."""
        source = job.params.train_encoders.image.source
        tower = load_extractor(source, job.device)
        features = tower.features(job.store.read(spread(job.rows, _MOST_FIT_TILES)))
        facts = {"source": source, "mean": features.mean(0).tolist(), "scale": (features.std(0) + 1e-6).tolist()}
        lineage = Lineage() if source in OF_NO_PATIENT else Lineage(unknown=(source,))
        return Fitted(facts | {"tower": tower.record}, lineage=lineage)

    @classmethod
    def load(cls, source: Source) -> Self:
        facts = source.facts
        if facts["source"] == OWN:
            return cls(*load_as_extractor(source.folder / OWN, source.device))
        tower = load_extractor(facts["source"], source.device).check(facts["tower"])
        return cls(tower, np.array(facts["mean"], np.float32), np.array(facts["scale"], np.float32))

    @property
    def channels(self) -> tuple[str, ...]:
        return (*(f"{self.tower.name} {index}" for index in range(self.tower.size)), "given")

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        values = (self.tower.features(tiles("image")) - self.mean) / self.scale
        return {self.name: np.concatenate([values, np.ones((len(rows), 1))], 1).astype(np.float32)}
