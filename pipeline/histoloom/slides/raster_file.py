"""A picture larger than memory, in a plain file that is read and written by boxes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from histoloom.data.pixel_box import PixelBox


@dataclass(frozen=True)
class RasterFile:
    """Rows of uint8 pixels, one after the other. What was never written is zero.

    Two tasks may write different boxes at once; mapped memory would count as the process's own, so it isn't used.
    """

    path: Path
    height: int
    width: int
    channels: int

    def create(self) -> RasterFile:
        with self.path.open("wb") as stream:
            stream.truncate(self.height * self.width * self.channels)
        return self

    def write(self, pixels: np.ndarray, *, left: int, top: int) -> None:
        """Write (h, w, channels) pixels at an upper left corner."""
        rows = np.ascontiguousarray(pixels)
        with self.path.open("r+b", buffering=0) as stream:
            for number, row in enumerate(rows):
                os.pwrite(stream.fileno(), row.tobytes(), self._offset(top + number, left))

    def read(self, box: PixelBox[int]) -> np.ndarray:
        """(h, w, channels) pixels of a box, cut where the picture ends."""
        height, width = min(box.height, self.height - box.top), min(box.width, self.width - box.left)
        out = np.empty((height, width, self.channels), np.uint8)
        with self.path.open("rb", buffering=0) as stream:
            for number, row in enumerate(out):
                data = os.pread(stream.fileno(), row.nbytes, self._offset(box.top + number, box.left))
                row[:] = np.frombuffer(data, np.uint8).reshape(row.shape)
        return out

    def _offset(self, row: int, column: int) -> int:
        return (row * self.width + column) * self.channels
