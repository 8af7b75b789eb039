"""The grid of tiles over a slide, in pixels of the target scale. Pure."""

from __future__ import annotations

from collections.abc import Iterator


def grid(width_px: int, height_px: int, tile_px: int, stride_px: int) -> Iterator[tuple[int, int]]:
    """Yield upper left corners (x, y) of whole tiles, row by row; what is left at the right and bottom is not tiled.

    All sizes are in pixels of the target scale.
    """
    for y in range(0, height_px - tile_px + 1, stride_px):
        for x in range(0, width_px - tile_px + 1, stride_px):
            yield x, y


def blocks(
    corners: list[tuple[int, int]], tile_px: int, block_px: int
) -> Iterator[tuple[tuple[int, int, int, int], list[tuple[int, int]]]]:
    """Group tiles so that one read serves many.

    Yields
    ------
    ((x, y, width, height), corners) : the box around the tiles whose corners lie in one block of side `block_px`.
    """
    grouped: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for x, y in corners:
        grouped.setdefault((y // block_px, x // block_px), []).append((x, y))
    for _, members in sorted(grouped.items()):
        xs, ys = [x for x, _ in members], [y for _, y in members]
        left, top = min(xs), min(ys)
        yield (left, top, max(xs) + tile_px - left, max(ys) + tile_px - top), members
