"""The leak unit of slides and tiles, and which split each group is in."""

from __future__ import annotations

from histoloom.config import Tile
from histoloom.data.keys import StudyKeys
from histoloom.data.manifest import Manifest, SlideEntry
from histoloom.data.splits import assign_splits, region_of
from histoloom.errors import Fault, ManifestFaults


def split_group(entry: SlideEntry, config: Tile, x: float, y: float, width: int, height: int) -> str:
    """The leak unit that a point of a slide belongs to."""
    if config.split.group == "region":
        region = config.split.region
        row, col = region_of(x, y, width, height, region.rows, region.cols)
        return f"{entry.slide_id}/r{row}c{col}"
    return entry.slide_id if config.split.group == "slide" else entry.patient_id


def split_groups(entry: SlideEntry, config: Tile) -> list[str]:
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
    groups = [group for entry in manifest.slides for group in split_groups(entry, config)]
    unknown = sorted(set(config.split.assign) - set(groups))
    if unknown:
        raise ManifestFaults(
            [
                Fault(
                    "params.yaml",
                    f"tile.split.assign names '{name}', which is no group.",
                    f"groups are {', '.join(sorted(set(groups))[:4])}, ...",
                )
                for name in unknown
            ]
        )
    stated = {group: entry.split for entry in manifest.slides if entry.split for group in split_groups(entry, config)}
    return assign_splits(
        groups,
        {str(split): fraction for split, fraction in config.split.fractions.items()},
        seed,
        {**stated, **config.split.assign},
    )


def study_keys(manifest: Manifest, config: Tile, splits: dict[str, str], key: str) -> StudyKeys:
    """The patients, slides or spots that the manifest names, before a tile is cut; `splits` are those of study_splits."""
    train, every = set(), set()
    for entry in manifest.slides:
        if key == "spot_id":
            names = (
                set()
                if manifest.spots is None
                else {*manifest.spots["spot_id"][manifest.spots["slide_id"] == entry.slide_id]}
            )
        else:
            names = {getattr(entry, key)}
        every |= names
        if any(splits.get(group) == "train" for group in split_groups(entry, config)):
            train |= names
    return StudyKeys(frozenset(train), frozenset(every))
