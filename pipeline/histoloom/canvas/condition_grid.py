"""Conditions on a coarse grid over a canvas, so that they may vary in space."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from histoloom.conditions.batch import Conditions


@dataclass(frozen=True)
class ConditionGrid:
    """Conditions on a coarse grid, interpolated at the middle of each window.

    Vectors and tokens are mixed by the distances to the four grid points around; a token counts where its caption has
    one.

    Parameters
    ----------
    points : the distinct conditions, and after them the nulls of all.
    index : (rows, columns) int, which of them each grid point has.
    spacing : (rows, columns) latent px between grid points; the first lies half of it inside the canvas.
    """

    points: Conditions
    index: torch.Tensor
    spacing: tuple[float, float]

    @property
    def nulls(self) -> Conditions:
        """The nulls of all conditions, one row."""
        return self.points.each(lambda value: value[-1:])

    def at(self, y: np.ndarray, x: np.ndarray) -> Conditions:
        """At places (n,) in latent px, n rows; beyond the outermost grid points it is what they state."""
        places, fractions = self._around(y, x)
        points = self.points

        def mixed(values: torch.Tensor) -> torch.Tensor:
            rows = values[places].float()
            return (rows * fractions.view(*fractions.shape, *(1,) * (rows.ndim - 2))).sum(1)

        vector = None if points.vector is None else mixed(points.vector)
        if points.sequence is None or points.sequence_mask is None:
            return Conditions(vector=vector)
        there = points.sequence_mask.float()
        weight = mixed(there)
        tokens = mixed(points.sequence * there[..., None]) / weight.clamp(min=1e-6)[..., None]
        return Conditions(tokens, weight > 0, vector)

    def _around(self, y: np.ndarray, x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The four points around each place, (n, 4), and the fraction of each."""
        axes = []
        for place, gap, count in zip((y, x), self.spacing, self.index.shape):
            at = np.clip(place / gap - 0.5, 0, count - 1)
            low = np.floor(at).astype(int)
            axes.append((low, np.minimum(low + 1, count - 1), at - low))
        (top, bottom, down), (left, right, along) = axes
        corners = [(top, left), (top, right), (bottom, left), (bottom, right)]
        fractions = [(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along]
        index = self.index.numpy()
        places = torch.from_numpy(np.stack([index[corner] for corner in corners], 1))
        return places, torch.from_numpy(np.stack(fractions, 1)).float()

    def save(self, path: Path) -> None:
        named = {k: v for k, v in vars(self.points).items() if v is not None and k != "map"}
        save_file(named | {"index": self.index, "spacing": torch.tensor(self.spacing)}, path)

    @classmethod
    def load(cls, path: Path) -> ConditionGrid:
        read = load_file(path)
        index, (down, along) = read.pop("index"), read.pop("spacing").tolist()
        return cls(Conditions(**read), index, (down, along))
