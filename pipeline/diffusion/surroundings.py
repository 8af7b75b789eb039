"""What is stated about a canvas, on disk, so that a worker reads what lies around its block and no more.

`canvas.zarr` holds arrays as large as the canvas in latent pixels: `free` (h, w) uint8, what is to be made; where the
denoiser reads maps, `map` (channels, h, w) float16; where an image is begun from, `image` (channels, h, w) float32, its
latents, and `known` (h, w) uint8, what of it is kept. `field.safetensors` holds the other conditions on a coarse grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
import zarr
from safetensors.torch import load_file, save_file

from pipeline.conditions.bus import Conditions
from pipeline.diffusion import torus

ARRAYS, FIELD = "canvas.zarr", "field.safetensors"


@dataclass(frozen=True)
class Field:
    """Conditions on a coarse grid, interpolated at the middle of each window.

    Vectors and tokens are mixed by the distances to the four grid points around; a token counts where its caption has
    one.

    Parameters
    ----------
    points : the distinct conditions.
    index : (rows, columns) int, which of them each grid point has.
    spacing : (rows, columns) latent px between grid points; the first lies half of it inside the canvas.
    """

    points: Conditions
    index: torch.Tensor
    spacing: tuple[float, float]

    def at(self, y: np.ndarray, x: np.ndarray) -> Conditions:
        """At places (n,) in latent px; beyond the outermost grid points it is what they state."""
        places, shares = self._around(y, x)
        points = self.points

        def mixed(values: torch.Tensor) -> torch.Tensor:
            rows = values[places].float()
            return (rows * shares.view(*shares.shape, *(1,) * (rows.ndim - 2))).sum(1)

        vector = None if points.vector is None else mixed(points.vector)
        if points.sequence is None:
            return Conditions(vector=vector)
        there = points.sequence_mask.float()
        weight = mixed(there)
        tokens = mixed(points.sequence * there[..., None]) / weight.clamp(min=1e-6)[..., None]
        return Conditions(tokens, weight > 0, vector)

    def _around(self, y: np.ndarray, x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The four points around each place, and their shares."""
        axes = []
        for place, gap, count in zip((y, x), self.spacing, self.index.shape):
            at = np.clip(place / gap - 0.5, 0, count - 1)
            low = np.floor(at).astype(int)
            axes.append((low, np.minimum(low + 1, count - 1), at - low))
        (top, bottom, down), (left, right, along) = axes
        corners = [(top, left), (top, right), (bottom, left), (bottom, right)]
        shares = [(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along]
        index = self.index.numpy()
        return torch.from_numpy(np.stack([index[c] for c in corners], 1)), torch.from_numpy(np.stack(shares, 1)).float()

    def save(self, path: Path) -> None:
        named = {k: v for k, v in vars(self.points).items() if v is not None and k != "map"}
        save_file(named | {"index": self.index, "spacing": torch.tensor(self.spacing)}, path)

    @classmethod
    def load(cls, path: Path) -> Field:
        read = load_file(path)
        index, spacing = read.pop("index"), read.pop("spacing")
        return cls(Conditions(**read), index, tuple(spacing.tolist()))


@dataclass(frozen=True)
class Box:
    """What is stated about one box of a canvas; see `canvas.Around`."""

    free: np.ndarray
    fixed: np.ndarray
    known: np.ndarray
    map: np.ndarray | None
    field: Field
    corner: tuple[int, int]
    canvas: tuple[int, int]

    def conditions(self, corners: np.ndarray, window: int) -> Conditions:
        middle = (corners + window / 2 + self.corner) % self.canvas
        given = self.field.at(middle[:, 0], middle[:, 1])
        if self.map is None:
            return given
        cut = np.stack([self.map[:, top : top + window, left : left + window] for top, left in corners])
        return Conditions(given.sequence, given.sequence_mask, given.vector, torch.from_numpy(cut).float())


@dataclass(frozen=True)
class Surroundings:
    """A canvas's conditions folder, open to read.

    background : (channels,) clean latents of what is not made, where there is no image.
    """

    folder: Path
    background: np.ndarray

    @cached_property
    def field(self) -> Field:
        return Field.load(self.folder / FIELD)

    @cached_property
    def arrays(self) -> zarr.Group:
        return zarr.open_group(self.folder / ARRAYS, mode="r")

    def box(self, top: int, left: int, height: int, width: int) -> Box:
        canvas = self.arrays["free"].shape

        def read(name: str) -> np.ndarray | None:
            if name not in self.arrays:
                return None
            array = self.arrays[name]
            return torus.read(lambda rows, columns: array[..., rows, columns], top, left, height, width, canvas)

        free, known, image = read("free") > 0, read("known"), read("image")
        if image is None:
            image = np.broadcast_to(self.background[:, None, None], (len(self.background), height, width))
        known = np.zeros_like(free) if known is None else known > 0
        return Box(free, image, known, read("map"), self.field, (top, left), canvas)


@lru_cache(maxsize=2)
def open_surroundings(folder: Path, background: tuple[float, ...]) -> Surroundings:
    return Surroundings(folder, np.array(background, np.float32))
