"""The leak unit of slides and tiles, and which split each group is in."""

from __future__ import annotations

from histoloom.config import Tile
from histoloom.data.found import Found
from histoloom.data.keys import StudyKeys
from histoloom.data.manifest import Manifest
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.splits import assign_splits, region_of
from histoloom.data.tile_sets.tiles import SetSlide
from histoloom.errors import refuse_faults


def split_group(entry: SlideEntry, config: Tile, point_px: tuple[float, float], size_px: tuple[int, int]) -> str:
    """The leak unit that a point (x, y) of a slide of (width, height) belongs to, level-0 px."""
    if config.split.group == "region":
        row, col = region_of(*point_px, size_px, config.split.region)
        return f"{entry.slide_id}/r{row}c{col}"
    return entry.slide_id if config.split.group == "slide" else entry.patient_id


def split_groups(entry: SlideEntry | SetSlide, config: Tile) -> list[str]:
    """All groups that a slide can have."""
    if config.split.group == "region":
        region = config.split.region
        return [f"{entry.slide_id}/r{r}c{c}" for r in range(region.rows) for c in range(region.cols)]
    return [entry.slide_id if config.split.group == "slide" else entry.patient_id]


def study_splits(manifest: Manifest, config: Tile, seed: int) -> dict[str, str]:
    """Give every group of the manifest its split: as stated, else by hash.

    Raises
    ------
    ManifestFaults
        when params assign a group that isn't there.
    """
    groups = [group for entry in manifest.stated for group in split_groups(entry, config)]
    found, known = Found("params.yaml"), f"groups are {', '.join(sorted(set(groups))[:4])}, ..."
    for name in sorted(set(config.split.assign) - set(groups)):
        found.fault(f"tile.split.assign names '{name}', which is no group.", known)
    refuse_faults(found.all)
    fractions: dict[str, float] = dict(config.split.fractions.items())
    stated = {group: entry.split for entry in manifest.stated if entry.split for group in split_groups(entry, config)}
    return assign_splits(groups, fractions, seed, {**stated, **config.split.assign})


def study_keys(manifest: Manifest, config: Tile, splits: dict[str, str], key: str) -> StudyKeys:
    """The patients, slides or spots that the manifest names, before a tile is cut; `splits` are those of study_splits."""
    train: set[str] = set()
    every: set[str] = set()
    for entry in manifest.stated:
        names = {getattr(entry, key)} if key != "spot_id" else set()
        if key == "spot_id" and manifest.spots is not None:
            names = {*manifest.spots["spot_id"][manifest.spots["slide_id"] == entry.slide_id]}
        every |= names
        if any(splits.get(group) == "train" for group in split_groups(entry, config)):
            train |= names
    return StudyKeys(frozenset(train), frozenset(every))
