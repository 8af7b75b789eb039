"""What is stated about a canvas, on disk, so that a worker reads what lies around its block and no more.

`canvas.zarr` holds arrays as large as the canvas in latent pixels: `free` (h, w) uint8, what is to be made; where the
denoiser reads maps, `map` (channels, h, w) float16; where an image is begun from, `image` (channels, h, w) float32, its
latents. `field.safetensors` holds the other conditions on a coarse grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import zarr

from histoloom.canvas import torus
from histoloom.canvas.condition_grid import Field
from histoloom.conditions.batch import Conditions

ARRAYS, FIELD = "canvas.zarr", "field.safetensors"
_CHUNK = 128


@dataclass(frozen=True)
class Box:
    """What is stated about one box of a canvas; see `canvas.Around`."""

    free: np.ndarray
    fixed: np.ndarray
    map: np.ndarray | None
    field: Field
    corner: tuple[int, int]
    canvas: tuple[int, int]

    def conditions(self, corners: np.ndarray, window: int) -> Conditions:
        middle = (corners + window / 2 + self.corner) % self.canvas
        extent = np.multiply(self.field.spacing, self.field.index.shape)
        middle = np.where(
            middle > (extent + self.canvas) / 2, middle - self.canvas, middle
        )  # the padding's nearer side
        given = self.field.at(middle[:, 0], middle[:, 1])
        if self.map is None:
            return given
        cut = np.stack([self.map[:, top : top + window, left : left + window] for top, left in corners])
        return Conditions(given.sequence, given.sequence_mask, given.vector, torch.from_numpy(cut).float())


@dataclass(frozen=True)
class Surroundings:
    """A canvas's conditions folder, open to read. Its attribute `background` is what is not made, where there is no
    image: (channels,) clean latents.
    """

    folder: Path

    @cached_property
    def field(self) -> Field:
        return Field.load(self.folder / FIELD)

    @cached_property
    def arrays(self) -> zarr.Group:
        return zarr.open_group(self.folder / ARRAYS, mode="r")

    @cached_property
    def background(self) -> np.ndarray:
        return np.array(self.arrays.attrs["background"], np.float32)

    @property
    def nothing(self) -> Conditions:
        """The nulls of all conditions but maps, one row."""
        return self.field.nothing

    def box(self, top: int, left: int, height: int, width: int) -> Box:
        canvas = self.arrays["free"].shape

        def read(name: str) -> np.ndarray | None:
            if name not in self.arrays:
                return None
            array = self.arrays[name]
            return torus.read(lambda rows, columns: array[..., rows, columns], top, left, height, width, canvas)

        free, image = read("free") > 0, read("image")
        if image is None:
            image = np.broadcast_to(self.background[:, None, None], (len(self.background), height, width))
        return Box(free, image, read("map"), self.field, (top, left), canvas)


def create(group: zarr.Group, name: str, lead: tuple[int, ...], canvas: tuple[int, int], dtype: str) -> zarr.Array:
    """A new array (*lead, *canvas)."""
    return group.create_array(name, shape=(*lead, *canvas), chunks=(*lead, _CHUNK, _CHUNK), dtype=dtype)
