"""Too few split groups for train, val and test: what the group is, how many there are, how many are needed, and what can be done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from histoloom.config import Split
from histoloom.data.found import listed
from histoloom.data.schema import SPLITS


def wanted_splits(config: Split) -> list[str]:
    """The splits that have a fraction."""
    fractions: dict[str, float] = dict(config.fractions.items())
    return [split for split in SPLITS if fractions.get(split, 0) > 0]


def empty_splits(splits: Mapping[str, str], config: Split) -> list[str]:
    """Those of them that no group is in; `splits` is group to split."""
    return [split for split in wanted_splits(config) if split not in splits.values()]


def few_groups(groups: Iterable[str], config: Split) -> str | None:
    """A clause on groups that are too few; None where they are enough."""
    names, wanted = sorted({*groups}), wanted_splits(config)
    if len(names) >= len(wanted):
        return None
    there = f"there {'is' if len(names) == 1 else 'are'} {len(names)}: {listed(names)}"
    return f"the split group is the {config.group} (tile.split.group), and {there}. {_joined(wanted)} need one each, {len(wanted)} in all"


def more_groups(slides: Sequence[str], patients: Iterable[str], config: Split, *, of_sets: bool) -> str:
    """What gives more groups.

    slides, patients : their ids. of_sets : whether tiles of sets are among them, which no regions divide.
    """
    count, several = len({*slides}), len({*patients}) > 1
    region = "tile.split.group: region, which lays a grid over each slide (tile.split.region)"
    if config.group == "region":
        return "raise tile.split.region.rows or cols, or add slides."
    if several:
        return "add patients."
    if config.group == "slide":
        return "add slides." if of_sets else f"add slides, or set {region}."
    by_slide = f"tile.split.group: slide ({count} slides)" if count >= len(wanted_splits(config)) else ""
    asked = " or ".join(filter(None, [by_slide, "" if of_sets else region]))
    if not asked:
        return "state the patient of each slide (patient_id), if they are several, or add patients."
    alone = "the results then say nothing about other patients."
    return f"if there are several, state each one's patient_id. Else ask for another group by name: {asked}; {alone}"


def _joined(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
