"""A rectangle of pixels: the one convention in which rectangles are passed on."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

N = TypeVar("N", int, float)


class PixelBox(NamedTuple, Generic[N]):
    """A rectangle of some grid of pixels; whoever takes one says which grid. `PixelBox[int]` holds whole pixels.

    Parameters
    ----------
    left, top : of its upper left corner, x before y.
    width, height : at least 0.
    """

    left: N
    top: N
    width: N
    height: N

    @property
    def right(self) -> N:
        return self.left + self.width

    @property
    def bottom(self) -> N:
        return self.top + self.height
