"""Which labels a study sees that is to see a share of them."""

from __future__ import annotations

from collections.abc import Mapping

from histoloom.config import Tile
from histoloom.data.groups import split_groups
from histoloom.data.manifest import Manifest
from histoloom.data.splits import chance, seen_labels

SQUARE_TILES = 2
"""Sides of a tile, of the coarsest scale, to a square that is seen or hidden as a whole."""


def seen_shares(manifest: Manifest, config: Tile, splits: Mapping[str, str], seed: int) -> dict[str, dict[str, float]]:
    """Of each slide, split to the share of its squares whose labels are seen; splits that are seen whole are not named.

    Labels of train are hidden, and of val where there is a test split. Where slides or patients are drawn, a share is 0
    or 1, and each split has at least one.
    """
    fraction, of = config.labels.fraction, config.labels.fraction_of
    out: dict[str, dict[str, float]] = {e.slide_id: {} for e in manifest.slides}
    if fraction == 1:
        return out
    for split in ("train", "val") if "test" in splits.values() else ("train",):
        members = [e for e in manifest.slides if split in {splits[g] for g in split_groups(e, config)}]
        if of == "tile":
            shares = dict.fromkeys((e.slide_id for e in members), fraction)
        else:
            units = {e.slide_id: e.patient_id if of == "patient" else e.slide_id for e in members}
            drawn = seen_labels(units.values(), fraction, seed)
            shares = {slide: float(unit in drawn) for slide, unit in units.items()}
        for slide, share in shares.items():
            if share < 1:
                out[slide][split] = share
    return out


def is_hidden(share: float, name: str, box: tuple[float, float, float], square: float, seed: int) -> bool:
    """Whether a tile shows anything of a hidden square.

    Parameters
    ----------
    share : of squares that are seen. name : of the slide and the split. box : left, top and side of the tile. square : a square's
        side, in the tile's unit.
    """
    if share in (0.0, 1.0):
        return share == 0
    left, top, side = box
    first, last = (
        [int(v / square + e) for v in p] for p, e in (((left, top), 1e-6), ((left + side, top + side), -1e-6))
    )
    touched = ((x, y) for x in range(first[0], last[0] + 1) for y in range(first[1], last[1] + 1))
    return any(chance(f"{name}/{x}/{y}", seed) >= share for x, y in touched)
