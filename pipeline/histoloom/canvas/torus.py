"""A canvas as a torus: opposite borders are neighbours, and what lies on it is read by pieces that don't wrap."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from histoloom.data.pixel_box import PixelBox
from histoloom.data.seeds import item_seed

NOISE_CELL = 64
"""Side of what one generator draws, latent px; changing it changes every canvas."""


def pieces(start: int, length: int, size: int) -> Iterator[tuple[slice, slice]]:
    """Where a span of an axis of `size` lies: slices of the span and of the axis, none of which wraps."""
    done = 0
    while done < length:
        here = (start + done) % size
        count = min(length - done, size - here)
        yield slice(done, done + count), slice(here, here + count)
        done += count


def read(source: Callable[[slice, slice], np.ndarray], box: PixelBox[int], canvas: tuple[int, int]) -> np.ndarray:
    """A box of a canvas (height, width), which may reach over its borders.

    Parameters
    ----------
    source : gives (..., rows, columns) of slices of the canvas, which don't wrap.
    """
    rows = [
        np.concatenate([source(row, column) for _, column in pieces(box.left, box.width, canvas[1])], -1)
        for _, row in pieces(box.top, box.height, canvas[0])
    ]
    return np.concatenate(rows, -2)


def mirrored(length: int, canvas: int) -> np.ndarray:
    """Which of the `length` pixels of a slide's axis lies at each of its canvas's, (canvas,) int: beyond the slide's end
    they come back, and before its start, around the torus, they do too."""
    place = np.arange(canvas)
    beyond = np.minimum(place - length, canvas - 1 - place)  # from the nearer border
    nearer_end = place - length < canvas - 1 - place
    back = np.where(nearer_end, length - 1 - beyond, beyond)
    return np.where(place < length, place, np.clip(back, 0, length - 1))


def noise_field(seed: int, channels: int, box: PixelBox[int], canvas: tuple[int, int]) -> np.ndarray:
    """Standard normal noise of a box, (channels, height, width) float32.

    A pixel's noise depends on the seed and its place on the canvas alone, never on the box that it is read with.
    """
    return read(lambda rows, columns: _noise(seed, channels, rows, columns), box, canvas)


def _noise(seed: int, channels: int, rows: slice, columns: slice) -> np.ndarray:
    side = NOISE_CELL
    cells = [(start // side, -(-stop // side)) for start, stop in ((s.start, s.stop) for s in (rows, columns))]
    drawn = np.block([[_cell(seed, channels, y, x) for x in range(*cells[1])] for y in range(*cells[0])])
    y, x = rows.start - cells[0][0] * side, columns.start - cells[1][0] * side
    return drawn[:, y : y + rows.stop - rows.start, x : x + columns.stop - columns.start]


def _cell(seed: int, channels: int, y: int, x: int) -> np.ndarray:
    generator = np.random.Generator(np.random.Philox(key=item_seed(seed, f"noise/{y}/{x}")))
    return generator.standard_normal((channels, NOISE_CELL, NOISE_CELL), dtype=np.float32)
