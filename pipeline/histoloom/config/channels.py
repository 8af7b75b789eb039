"""The names of a mask's channels, which a trained model writes down and params must be able to read."""

from __future__ import annotations

from math import isqrt

BACKGROUND, EDGE = "background", "edge"


def mask_channels(classes: tuple[str, ...], *, edges: bool, detail: int) -> tuple[str, ...]:
    """Names of the map's channels: background, the classes in the order of their ids, `edge` where outlines are used;
    with more detail, of each cell of each (`nucleus 0.1` is the upper right of four)."""
    names = (BACKGROUND, *classes, *([EDGE] if edges else []))
    if detail == 1:
        return names
    return tuple(f"{name} {row}.{column}" for name in names for row in range(detail) for column in range(detail))


def read_channels(channels: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """What `mask_channels` was given: background, classes and edge; and the detail."""
    cells = sum(name.startswith(f"{BACKGROUND} ") for name in channels)
    if not cells:
        return channels, 1
    return tuple(name.rsplit(" ", 1)[0] for name in channels[::cells]), isqrt(cells)
