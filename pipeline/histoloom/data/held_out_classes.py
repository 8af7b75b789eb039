"""Classes that train shows and val or test does not, and how that is mended."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

import pandas as pd

from histoloom.data.splits import assign_inline

HELD_OUT = ("val", "test")
ClassCounts = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Class to split to split group to the number of its tiles or slides."""
_CLASSES_SHOWN = 5


def class_counts(rows: pd.DataFrame, classes: Iterable[str]) -> ClassCounts:
    """Tiles of each class, of rows with `label`, `split` and `split_group`."""
    counted = rows.groupby(["label", "split", "split_group"]).size()
    counts: dict[str, dict[str, dict[str, int]]] = {name: {} for name in classes}
    for (name, split, group), number in counted.items():
        if name in counts:
            counts[name].setdefault(split, {})[group] = int(number)
    return counts


def lacking(counts: ClassCounts, splits: Container[str]) -> dict[str, list[str]]:
    """Held-out split to the classes that train shows and it does not. `splits` that have no group are left out."""
    found = {
        split: [name for name, of in counts.items() if of.get("train") and not of.get(split)]
        for split in HELD_OUT
        if split in splits
    }
    return {split: names for split, names in found.items() if names}


def lacking_in_words(counts: ClassCounts, splits: Container[str], what: str, group: str) -> Iterator[str]:
    """A sentence for each held-out split that lacks classes, and one on how to mend it.

    splits : those that have a group. what : 'tile' or 'slide', what is counted. group : the unit of the split, such as 'patient'.
    """
    moved: dict[str, str] = {}  # to either split, so that no group is proposed twice
    for split, names in lacking(counts, splits).items():
        listed = ", ".join(f"'{name}' ({_elsewhere(counts[name], split)})" for name in names[:_CLASSES_SHOWN])
        more = f" and {len(names) - _CLASSES_SHOWN:,} more" if len(names) > _CLASSES_SHOWN else ""
        remedy = _remedy(counts, names, split, group, moved)
        yield f"no {split} {what} of {listed}{more}: nothing is measured of it there. {remedy}"


def _elsewhere(of: Mapping[str, Mapping[str, int]], split: str) -> str:
    others = [name for name in ("train", *HELD_OUT) if name != split]
    return ", ".join(f"{sum(of.get(name, {}).values()):,} in {name}" for name in others)


def _remedy(counts: ClassCounts, names: list[str], split: str, group: str, moved: dict[str, str]) -> str:
    """Groups of train that may go to the split, each the smallest of its class where train keeps another; else to add groups.

    moved : groups that are proposed already, to their split; those of this call are added.
    """
    alone = []
    for name in names[:_CLASSES_SHOWN]:
        train = counts[name]["train"]
        if any(moved.get(each) == split for each in train):
            continue
        left = sorted({*train} - {*moved}, key=lambda each: (train[each], each))
        if len(left) > 1:
            moved[left[0]] = split
        else:
            alone.append(f"'{name}'")
    mine, said = {name: to for name, to in moved.items() if to == split}, []
    if mine:
        said.append(f"Move a {group} of it, such as {assign_inline(mine)}.")
    if alone:
        said.append(f"Train has no {group} of {', '.join(alone)} to spare: add another {group} that shows it.")
    return " ".join(said)
