"""The names of a map's channels, which a trained model writes down and params must be able to read."""

from __future__ import annotations

import re
from math import isqrt

BACKGROUND, EDGE, NOISE = "background", "edge", "noise"
_CELL = re.compile(r"(.+) 0\.0")


def mask_channels(classes: tuple[str, ...], *, edges: bool, detail: int) -> tuple[str, ...]:
    """Names of the map's channels: background, the classes in the order of their ids, `edge` where outlines are used;
    with more detail, of each cell of each (`nucleus 0.1` is the upper right of four)."""
    return detailed((BACKGROUND, *classes, *([EDGE] if edges else [])), detail)


def detailed(names: tuple[str, ...], detail: int) -> tuple[str, ...]:
    """Names of the channels of each of detail x detail cells of a pixel."""
    if detail == 1:
        return names
    return tuple(f"{name} {row}.{column}" for name in names for row in range(detail) for column in range(detail))


def read_channels(channels: tuple[str, ...]) -> tuple[tuple[str, ...], int]:
    """What `detailed` was given: the names, and the detail."""
    first = _CELL.fullmatch(channels[0]) if channels else None
    if first is None:
        return channels, 1
    cells = sum(name.startswith(f"{first[1]} ") for name in channels)
    return tuple(name.rsplit(" ", 1)[0] for name in channels[::cells]), isqrt(cells)
