"""The label budget: which labels are visible to a study that is to have a fraction of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from histoloom.config import Tile
from histoloom.data.groups import split_groups
from histoloom.data.manifest import Manifest
from histoloom.data.pixel_box import PixelBox
from histoloom.data.schema import SPLITS
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.splits import chance, shuffled

SQUARE_TILES = 2
"""Sides of a tile, of the coarsest scale, to a square that is visible or hidden as a whole."""


def visible_fractions(
    manifest: Manifest, config: Tile, splits: Mapping[str, str], seed: int
) -> dict[str, dict[str, float]]:
    """Of each slide, split to the fraction of its squares whose labels are visible; splits with nothing hidden are not named.

    Labels of train are hidden, and of val where there is a test split. Where slides or patients are drawn, a fraction is 0
    or 1, and each split has at least one of 1. Of a slide that nobody labelled nothing is visible, and it counts for no fraction.
    """
    fraction, of = config.labels.fraction, config.labels.fraction_of
    out: dict[str, dict[str, float]] = {entry.slide_id: {} for entry in manifest.stated}
    unlabelled = {e.slide_id for e in manifest.stated if isinstance(e, SlideEntry) and e.is_unlabelled(config)}
    out.update({slide_id: dict.fromkeys(SPLITS, 0.0) for slide_id in unlabelled})
    if fraction == 1:
        return out
    for split in ("train", "val") if "test" in splits.values() else ("train",):
        own = [e for e in manifest.stated if split in {splits[g] for g in split_groups(e, config)}]
        members = [e for e in own if e.slide_id not in unlabelled]
        if config.labels.source == "none":  # whose masks nobody drew has nothing to be hidden
            members = [e for e in members if not isinstance(e, SlideEntry) or e.masks_annotated(config)]
        if of == "tile":
            visible = dict.fromkeys((e.slide_id for e in members), fraction)
        else:
            units = {e.slide_id: e.patient_id if of == "patient" else e.slide_id for e in members}
            drawn = drawn_units(units.values(), fraction, seed)
            visible = {slide: float(unit in drawn) for slide, unit in units.items()}
        for slide, of_slide in visible.items():
            if of_slide < 1:
                out[slide][split] = of_slide
    return out


def drawn_units(units: Iterable[str], fraction: float, seed: int) -> set[str]:
    """This fraction of the units, rounded up; a larger fraction holds those of a smaller one."""
    order = shuffled(set(units), seed)
    return set(order[: math.ceil(fraction * len(order) - 1e-9)])


def is_hidden(tile: PixelBox[float], square_px: float, name: str, fraction: float, seed: int) -> bool:
    """Whether a tile shows anything of a hidden square.

    Parameters
    ----------
    tile : in the unit of `square_px`, the side of a square.
    name : of the slide and the split.
    fraction : of the squares that are visible.
    """
    if fraction in (0.0, 1.0):
        return fraction == 0
    columns, rows = (
        range(int(start / square_px + 1e-6), int(end / square_px - 1e-6) + 1)
        for start, end in ((tile.left, tile.right), (tile.top, tile.bottom))
    )
    return any(chance(f"{name}/{x}/{y}", seed) >= fraction for x in columns for y in rows)
