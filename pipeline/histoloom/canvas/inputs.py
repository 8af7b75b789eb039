"""What is stated about a canvas, on disk, so that a worker reads what lies around its block and no more.

`canvas.zarr` holds arrays as large as the canvas in latent pixels: `free` (h, w) uint8, what is to be made; where the
denoiser reads maps, `map` (channels, h, w) float16; where an image is begun from, `image` (channels, h, w) float32, its
latents; where the solver's x is begun from, `start` (channels, h, w) float32. `condition_grid.safetensors` holds the other conditions on a coarse grid.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import zarr

from histoloom.canvas import torus
from histoloom.canvas.condition_grid import ConditionGrid
from histoloom.conditions.batch import Conditions
from histoloom.data.pixel_box import PixelBox

ARRAYS, GRID = "canvas.zarr", "condition_grid.safetensors"
_CHUNK = 128
_MOST_HELD_BYTES = 256 * 2**20
"""An array up to this size is read once and kept in memory; of a larger one each block reads what lies around it, at each step."""


@dataclass(frozen=True)
class RegionInputs:
    """What is stated about a region of a canvas.

    free : (height, width) bool, the pixels that are to be made; in the process's own memory, since it decides what is denoised.
    fixed : (channels, height, width) float32, the clean latents of the others, which they keep.
    map : (map channels, height, width) float16, or None where the denoiser reads no map.
    box : the region, latent px of the canvas. canvas : (height, width).
    """

    free: np.ndarray
    fixed: torch.Tensor
    map: torch.Tensor | None
    grid: ConditionGrid
    box: PixelBox[int]
    canvas: tuple[int, int]

    def to(self, device: str) -> RegionInputs:
        """With what is computed with on a device."""
        there = None if self.map is None else self.map.to(device, non_blocking=True)
        return replace(self, fixed=self.fixed.to(device, non_blocking=True), map=there)

    def conditions(self, corners: np.ndarray, window: int) -> Conditions:
        """The conditions of windows, a row each.

        Parameters
        ----------
        corners : (n, 2) int, upper left of each window, row and column in the region.
        window : side of a window, latent px.
        """
        middle = (corners + window / 2 + (self.box.top, self.box.left)) % self.canvas
        extent = np.multiply(self.grid.spacing, self.grid.index.shape)
        # the padding's nearer side
        middle = np.where(middle > (extent + self.canvas) / 2, middle - self.canvas, middle)
        given = self.grid.at(middle[:, 0], middle[:, 1])
        if self.map is None:
            return given
        cut = torch.stack([self.map[:, top : top + window, left : left + window] for top, left in corners])
        return Conditions(given.sequence, given.sequence_mask, given.vector, cut.float())


@dataclass(frozen=True)
class CanvasInputs:
    """The folder of what is stated about a canvas, open to read."""

    folder: Path

    @cached_property
    def grid(self) -> ConditionGrid:
        return ConditionGrid.load(self.folder / GRID)

    @cached_property
    def arrays(self) -> zarr.Group:
        """Its attribute `background` is the clean latent (channels,) of what is not made, where there is no image."""
        return zarr.open_group(self.folder / ARRAYS, mode="r")

    @cached_property
    def _held(self) -> dict[str, np.ndarray | zarr.Array]:
        return {}

    def _array(self, name: str) -> np.ndarray | zarr.Array:
        """An array, in memory where it is small enough."""
        if name not in self._held:
            array = array_of(self.arrays, name)
            self._held[name] = array if array.nbytes > _MOST_HELD_BYTES else np.asarray(array[...])
        return self._held[name]

    @cached_property
    def background(self) -> np.ndarray:
        return np.array(self.arrays.attrs["background"], np.float32)

    @property
    def nulls(self) -> Conditions:
        """The nulls of all conditions but maps, one row."""
        return self.grid.nulls

    def start(self, box: PixelBox[int]) -> torch.Tensor | None:
        """The x (channels, height, width) that a box begins from, where the canvas has it of another."""
        if "start" not in self.arrays:
            return None
        array = array_of(self.arrays, "start")
        read = torus.read(
            lambda rows, columns: np.asarray(array[..., rows, columns]), box, (array.shape[1], array.shape[2])
        )
        return torch.from_numpy(read)

    def region(self, box: PixelBox[int]) -> RegionInputs:
        """What is stated about a box of the canvas, latent px; it may reach over the canvas's borders."""
        height, width = self._array("free").shape
        canvas = height, width

        def read(name: str) -> np.ndarray:
            array = self._array(name)
            return torus.read(lambda rows, columns: np.asarray(array[..., rows, columns]), box, canvas)

        if "image" in self.arrays:
            fixed = torch.from_numpy(read("image"))
        else:
            fixed = torch.from_numpy(self.background)[:, None, None].expand(-1, box.height, box.width)
        maps = torch.from_numpy(read("map")) if "map" in self.arrays else None
        return RegionInputs(read("free") > 0, fixed, maps, self.grid, box, canvas)


def create(group: zarr.Group, name: str, lead: tuple[int, ...], canvas: tuple[int, int], dtype: str) -> zarr.Array:
    """A new array (*lead, *canvas)."""
    return group.create_array(name, shape=(*lead, *canvas), chunks=(*lead, _CHUNK, _CHUNK), dtype=dtype)


def array_of(group: zarr.Group, name: str) -> zarr.Array:
    """The array of that name in a group."""
    array = group[name]
    assert isinstance(array, zarr.Array), "a canvas's groups hold arrays alone"
    return array
