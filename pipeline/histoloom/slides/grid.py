"""The grid of tiles over a slide, in pixels of the target scale. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from histoloom.data.pixel_box import PixelBox

Corner = tuple[int, int]
"""x and y of a tile's upper left corner, px of the target scale."""


def grid(
    width_px: int, height_px: int, tile_px: int, stride_px: int, shift_from_px: int | None = None
) -> Iterator[Corner]:
    """Yield upper left corners (x, y) of whole tiles, row by row.

    All sizes are in pixels of the target scale.

    Parameters
    ----------
    shift_from_px : where at least so much is left over at the right or at the bottom, a last column or row is moved inwards
        to end there; None leaves it without tiles.
    """
    columns = _starts(width_px, tile_px, stride_px, shift_from_px)
    for y in _starts(height_px, tile_px, stride_px, shift_from_px):
        for x in columns:
            yield x, y


def _starts(length_px: int, tile_px: int, stride_px: int, shift_from_px: int | None) -> list[int]:
    last = length_px - tile_px
    starts = list(range(0, last + 1, stride_px))
    if starts and shift_from_px is not None and last - starts[-1] >= shift_from_px:
        starts.append(last)
    return starts


_MOST_READ = 1.25
"""Pixels that are read for each pixel of tiles that are read one by one."""


def blocks(
    corners: Iterable[Corner], tile_px: int, block_px: int, margin_px: int = 0
) -> Iterator[tuple[PixelBox[int], list[Corner]]]:
    """Group tiles so that one read serves many.

    Parameters
    ----------
    margin_px : what is read beyond the tiles on each side of a box.

    Yields
    ------
    The box around the tiles whose corners lie in one block of side `block_px`, px of the target scale, and these corners.
    Where they are so sparse that the box is a quarter larger than if each were read alone, it is parted in the middle, and its
    halves again: it costs more to read what nobody asked for than to read often.
    """
    grouped: dict[tuple[int, int], list[Corner]] = {}
    for x, y in corners:
        grouped.setdefault((y // block_px, x // block_px), []).append((x, y))
    for _, members in sorted(grouped.items()):
        yield from _boxes(members, tile_px, margin_px)


def _boxes(corners: list[Corner], tile_px: int, margin_px: int) -> Iterator[tuple[PixelBox[int], list[Corner]]]:
    (xs, ys), alone_px = zip(*corners), tile_px + 2 * margin_px
    left, top = min(xs) - margin_px, min(ys) - margin_px
    box = PixelBox(left, top, max(xs) - min(xs) + alone_px, max(ys) - min(ys) + alone_px)
    if box.width * box.height <= _MOST_READ * len(corners) * alone_px**2:
        yield box, corners
        return
    axis, along = (0, xs) if box.width > box.height else (1, ys)
    middle = (min(along) + max(along)) // 2
    yield from _boxes([corner for corner in corners if corner[axis] <= middle], tile_px, margin_px)
    yield from _boxes([corner for corner in corners if corner[axis] > middle], tile_px, margin_px)
