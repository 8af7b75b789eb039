"""Splits by group. The group is the leak unit: what is known of one member is known of all."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping

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
    fractions : split to share of the groups, adding up to 1.
    fixed : group to split, for groups whose split was stated; they don't count towards the fractions.
    """
    fixed = dict(fixed or {})
    free = _shuffled(set(groups) - set(fixed), seed)
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


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: (_hash(name, seed), name))


def _hash(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def chance(name: str, seed: int) -> float:
    """A number in [0, 1) that is the name's own, as if drawn."""
    return int.from_bytes(_hash(name, seed)[:6], "big") / 2**48


def seen_labels(units: Iterable[str], fraction: float, seed: int) -> set[str]:
    """The units whose labels a study sees: this share of them, rounded up; a larger share holds those of a smaller one."""
    order = _shuffled(set(units), seed)
    return set(order[: math.ceil(fraction * len(order) - 1e-9)])


def region_of(x_px: float, y_px: float, width_px: float, height_px: float, rows: int, cols: int) -> tuple[int, int]:
    """Row and column of the region that a point lies in; regions divide a slide evenly."""
    return min(int(y_px * rows / height_px), rows - 1), min(int(x_px * cols / width_px), cols - 1)


def inside_region(
    x_px: float, y_px: float, side_px: float, width_px: float, height_px: float, rows: int, cols: int, gap_px: float
) -> bool:
    """Whether a square tile keeps half the gap from every border between regions."""
    row, col = region_of(x_px + side_px / 2, y_px + side_px / 2, width_px, height_px, rows, cols)
    half = gap_px / 2
    left = -float("inf") if col == 0 else col * width_px / cols + half
    right = float("inf") if col == cols - 1 else (col + 1) * width_px / cols - half
    top = -float("inf") if row == 0 else row * height_px / rows + half
    bottom = float("inf") if row == rows - 1 else (row + 1) * height_px / rows - half
    return x_px >= left and x_px + side_px <= right and y_px >= top and y_px + side_px <= bottom
