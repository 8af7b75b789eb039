"""Splits by group. The group is the leak unit: what is known of one member is known of all."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterable, Mapping

from ruamel.yaml import YAML

from histoloom.config import Region
from histoloom.data.pixel_box import PixelBox
from histoloom.data.schema import SPLITS


def assign_splits(
    groups: Iterable[str], fractions: Mapping[str, float], seed: int, fixed: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Give each group a split.

    Groups are ordered by a hash of (seed, group) and the order is cut at the fractions, so that one group more
    moves at most one group over each cut. Each split with a fraction above 0 gets a group where there are enough.

    Parameters
    ----------
    groups : names, in any order; repeats don't count.
    fractions : split to fraction of the groups, adding up to 1.
    fixed : group to split, for groups whose split was stated; they don't count towards the fractions.
    """
    fixed = dict(fixed or {})
    free = shuffled(set(groups) - set(fixed), seed)
    wanted = [s for s in SPLITS if fractions.get(s, 0) > 0 and (s not in fixed.values() or not free)]
    taken = {group: split for group, split in fixed.items() if group in set(groups)}
    start, done = 0, 0.0
    open_splits = [s for s in SPLITS if fractions.get(s, 0) > 0]
    for index, split in enumerate(open_splits):
        done += fractions[split]
        later = [s for s in open_splits[index + 1 :] if s in wanted]
        end = round(len(free) * done) if index < len(open_splits) - 1 else len(free)
        end = min(end, len(free) - len(later))
        if split in wanted:
            end = max(end, min(start + 1, len(free)))
        end = max(end, start)
        taken.update(dict.fromkeys(free[start:end], split))
        start = end
    return taken


def assign_block(splits: Mapping[str, str]) -> str:
    """`tile.split.assign` as YAML to be pasted into params.yaml; ids that YAML would take for numbers stand in quotes."""
    return _yaml({"tile": {"split": {"assign": dict(splits)}}}, flow=False)


def assign_inline(splits: Mapping[str, str]) -> str:
    """The same in one line of text: 'tile.split.assign: {P07: test}'."""
    return f"tile.split.assign: {_yaml(dict(splits), flow=True)}"


def _yaml(value: dict, *, flow: bool) -> str:
    yaml, stream = YAML(), io.StringIO()
    yaml.default_flow_style, yaml.width = flow, 10_000
    yaml.dump(value, stream)
    return stream.getvalue().rstrip()


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """The names in an order that hashes of (seed, name) decide: a name more moves no other."""
    return sorted(names, key=lambda name: (_hash(name, seed), name))


def _hash(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def chance(name: str, seed: int) -> float:
    """A number in [0, 1) that is the name's own, as if drawn."""
    return int.from_bytes(_hash(name, seed)[:6], "big") / 2**48


def region_of(x_px: float, y_px: float, size_px: tuple[float, float], grid: Region) -> tuple[int, int]:
    """Row and column of the region that a point lies in; regions divide a slide of (width, height) evenly."""
    width, height = size_px
    return min(int(y_px * grid.rows / height), grid.rows - 1), min(int(x_px * grid.cols / width), grid.cols - 1)


def inside_region(tile: PixelBox[float], size_px: tuple[float, float], grid: Region, gap_px: float) -> bool:
    """Whether a tile keeps half the gap from every border between the regions of a slide of (width, height).

    The tile's box, the size and the gap are in pixels of one grid, such as level 0.
    """
    row, col = region_of(tile.left + tile.width / 2, tile.top + tile.height / 2, size_px, grid)
    (width, height), half = size_px, gap_px / 2
    left = -math.inf if col == 0 else col * width / grid.cols + half
    right = math.inf if col == grid.cols - 1 else (col + 1) * width / grid.cols - half
    top = -math.inf if row == 0 else row * height / grid.rows + half
    bottom = math.inf if row == grid.rows - 1 else (row + 1) * height / grid.rows - half
    return tile.left >= left and tile.right <= right and tile.top >= top and tile.bottom <= bottom
