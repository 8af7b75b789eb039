"""The eight forms of a square tile. Tissue has no up or left, so each form is a tile too, with its mask turned alike."""

from __future__ import annotations

import numpy as np

FORMS = {"none": 1, "flips": 4, "turns": 8}
"""How many of the forms, in their order, `encode.forms` takes: as it is, three mirrored, four transposed."""


def turn(arrays: np.ndarray, form: int, rows_axis: int = -2) -> np.ndarray:
    """One form of square arrays; bit 0 mirrors columns, bit 1 mirrors rows, bit 2 swaps both axes first.

    Parameters
    ----------
    rows_axis : axis of the rows; the columns' axis comes next.
    """
    columns = rows_axis + 1
    out = np.swapaxes(arrays, rows_axis, columns) if form & 4 else arrays
    return np.flip(out, [axis for bit, axis in ((1, columns), (2, rows_axis)) if form & bit])
