"""The eight symmetries of a square tile: tissue has no up or left, so each is a tile too, with its mask turned alike."""

from __future__ import annotations

import numpy as np

SYMMETRIES = {"none": 1, "flips": 4, "turns": 8}
"""How many of the symmetries, in their order, `encode.symmetries` takes: the tile as it is, three mirrored, four transposed."""


def apply_symmetry(arrays: np.ndarray, symmetry: int, rows_axis: int = -2) -> np.ndarray:
    """Square arrays under one symmetry; bit 0 mirrors columns, bit 1 mirrors rows, bit 2 swaps both axes first.

    Parameters
    ----------
    rows_axis : axis of the rows; the columns' axis comes next.
    """
    columns = rows_axis + 1
    out = np.swapaxes(arrays, rows_axis, columns) if symmetry & 4 else arrays
    return np.flip(out, tuple(axis for bit, axis in ((1, columns), (2, rows_axis)) if symmetry & bit))
