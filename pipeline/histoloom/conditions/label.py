"""The label as a vector: one hot over the classes, zeros for none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from histoloom.conditions.condition import Arrays, Condition, ReadTiles, Source
from histoloom.config import Params
from histoloom.errors import HistoloomError


@dataclass(frozen=True)
class LabelCondition(Condition):
    classes: tuple[str, ...]
    name = "label"
    shape = "vector"
    hot = True
    column = "label"

    @classmethod
    def known_channels(cls, params: Params) -> tuple[str, ...]:
        return params.tile.labels.classes

    @classmethod
    def load(cls, source: Source) -> Self:
        return cls(source.channels)

    @property
    def channels(self) -> tuple[str, ...]:
        return self.classes

    def arrays(self, rows: pd.DataFrame, tiles: ReadTiles) -> Arrays:
        return {self.name: encode_labels(rows["label"].tolist(), self.classes)}


def encode_labels(labels: Sequence[str | None], classes: Sequence[str]) -> np.ndarray:
    """(n, classes) float32, a row of zeros where the label is missing.

    Raises
    ------
    HistoloomError
        for a label that the classes don't hold.
    """
    out = np.zeros((len(labels), len(classes)), np.float32)
    place = {name: index for index, name in enumerate(classes)}
    for row, label in enumerate(labels):
        if label is None or label != label:
            continue
        if label not in place:
            raise HistoloomError(f"Label '{label}' is not one that the model knows: {', '.join(classes)}.")
        out[row, place[label]] = 1
    return out
