"""A rectangle of pixels: the one convention in which rectangles are passed on."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

N = TypeVar("N", int, float, covariant=True)


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

    def grown(self: PixelBox[float], margin: float) -> PixelBox[float]:
        """The box with a margin on all four sides."""
        return PixelBox(self.left - margin, self.top - margin, self.width + 2 * margin, self.height + 2 * margin)

    def scaled(self: PixelBox[float], factor: float) -> PixelBox[float]:
        """The box on a grid of `factor` pixels for each of this one's."""
        return PixelBox(self.left * factor, self.top * factor, self.width * factor, self.height * factor)

    def shape_at(self: PixelBox[float], downsample: float) -> tuple[int, int]:
        """(height, width) of its picture, in whole pixels of a grid that has one for `downsample` of this one's."""
        return round(self.height / downsample), round(self.width / downsample)


def cut(box: PixelBox[int], size: tuple[int, int]) -> PixelBox[int]:
    """A box cut where a picture of (height, width) ends."""
    return box._replace(width=min(box.width, size[1] - box.left), height=min(box.height, size[0] - box.top))
