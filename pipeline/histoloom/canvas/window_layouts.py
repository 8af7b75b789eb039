"""How the windows of a denoiser are laid over a canvas at each step.

A block holds its own pixels; a step reads a region that begins `move` further on and is `reach` larger, and leaves
pixels that begin `inset` inside that region. So a canvas drifts one way from step to step, and what a block must be
told of the others lies right of it, below it and at that corner.

- lattice : disjoint cells in the middle of windows, shifted at each step; each pixel is predicted once.
- independent : the same without halo or shift, tiles that know nothing of each other.
- random : windows about random pixels that none has covered yet, a pixel kept from its first window (Aversa et al.
  2023, DiffInfinite; all windows of a step read one noise level, and every pair of DDIM steps is run).
- stride : windows at half their side, averaged (Bar-Tal et al. 2023, MultiDiffusion, eq. 5).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from histoloom.data.pixel_box import PixelBox


@dataclass(frozen=True)
class Windows:
    """Windows over a block.

    corners : (n, 2) int, upper left, row and column in the block's region.
    weight : (n, w, w) float32, of each pixel in a window; the weights of a block's pixel add up to 1.
    own : the pixels of the region that the block has after the step.
    """

    corners: np.ndarray
    weight: np.ndarray
    own: PixelBox[int]


@dataclass(frozen=True)
class WindowLayout(ABC):
    """How windows are laid over a canvas. Unless a layout says otherwise, they begin anywhere on one block, and reach over its end; only a
    `Lattice` can be laid block by block.

    window : side of a window, latent px.
    """

    window: int

    def reach(self, step: int) -> int:
        return self.window

    def inset(self, step: int) -> int:
        return 0

    def move(self, step: int, rng: np.random.Generator) -> tuple[int, int]:
        return 0, 0

    @abstractmethod
    def windows(self, step: int, height: int, width: int, rng: np.random.Generator) -> Windows:
        """The windows of a step over a region (height, width), latent px."""


@dataclass(frozen=True)
class Lattice(WindowLayout):
    """halos : context around each cell, latent px, one a step or one for all."""

    halos: Sequence[int]
    moves: bool = True

    def halo(self, step: int) -> int:
        return self.halos[min(step, len(self.halos) - 1)]

    def cell(self, step: int = 0) -> int:
        return self.window - 2 * self.halo(step)

    def reach(self, step: int) -> int:
        return 2 * self.halo(step)

    def inset(self, step: int) -> int:
        return self.halo(step)

    def move(self, step: int, rng: np.random.Generator) -> tuple[int, int]:
        if not self.moves:
            return 0, 0
        down, right = rng.integers(0, self.cell(step), 2)
        return int(down), int(right)

    def windows(self, step: int, height: int, width: int, rng: np.random.Generator) -> Windows:
        (tops, rows), (lefts, columns) = (self._spans(step, length) for length in (height, width))
        corners = [(top, left) for top in tops for left in lefts]
        own = PixelBox(self.inset(step), self.inset(step), width, height)
        return Windows(np.array(corners), np.stack([np.outer(r, c) for r in rows for c in columns]), own)

    def _spans(self, step: int, length: int) -> tuple[list[int], np.ndarray]:
        """Where windows begin along an axis, and which of their pixels each keeps; the last lies flush with the end."""
        cell, halo = self.cell(step), self.halo(step)
        starts = [min(start, length - cell) for start in range(0, length, cell)]
        keep = np.zeros((len(starts), self.window), np.float32)
        for row, (start, wanted) in zip(keep, zip(starts, range(0, length, cell))):
            row[halo + wanted - start : halo + cell] = 1
        return starts, keep


@dataclass(frozen=True)
class Random(WindowLayout):
    """Windows about random pixels that none has covered yet."""

    def windows(self, step: int, height: int, width: int, rng: np.random.Generator) -> Windows:
        open_, w = np.ones((height, width), bool), self.window
        order = rng.permutation(height * width)  # the first still open is a random one of all that are
        corners, weights = [], []
        for place in order:
            y, x = divmod(int(place), width)
            if not open_[y, x]:
                continue
            top, left = (y - w // 2) % height, (x - w // 2) % width
            here = np.ix_((top + np.arange(w)) % height, (left + np.arange(w)) % width)
            corners.append((top, left))
            weights.append(open_[here].astype(np.float32))
            open_[here] = False
        return Windows(np.array(corners), np.stack(weights), PixelBox(0, 0, width, height))


@dataclass(frozen=True)
class Stride(WindowLayout):
    """Windows at half their side, averaged."""

    def windows(self, step: int, height: int, width: int, rng: np.random.Generator) -> Windows:
        w, half = self.window, self.window // 2
        tops, lefts = (np.unique(np.minimum(np.arange(0, n, half), n - 1)) for n in (height, width))
        corners = np.array([(top, left) for top in tops for left in lefts])
        count = np.zeros((height, width), np.float32)
        places = [np.ix_((y + np.arange(w)) % height, (x + np.arange(w)) % width) for y, x in corners]
        for place in places:
            count[place] += 1
        return Windows(corners, np.stack([1 / count[place] for place in places]), PixelBox(0, 0, width, height))


def make_window_layout(
    name: Literal["lattice", "random", "stride", "independent"], window: int, halos: Sequence[int]
) -> WindowLayout:
    """A window layout by its name in params; `halos` are a lattice's."""
    if name in ("lattice", "independent"):
        return Lattice(window, tuple(halos)) if name == "lattice" else Lattice(window, (0,), moves=False)
    return Random(window) if name == "random" else Stride(window)
