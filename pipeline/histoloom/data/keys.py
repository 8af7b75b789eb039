"""Keys of tables: read as the study's ids, told apart, and matched with those that the study has."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from histoloom.config.train_encoders import SampleTable
from histoloom.data.found import Found, listed
from histoloom.errors import Fault, Note

_SHOWN = 5
_MARKS = "-_.:/ "
"""What an id may be extended after, as a patient's is in a sample's barcode."""


@dataclass(frozen=True)
class StudyKeys:
    """The ids that the study has in a table's key column: of train tiles, and of all."""

    train: frozenset[str]
    every: frozenset[str]


def read_keys(
    written: Sequence[object], config: SampleTable, lines: Sequence[int] | None = None
) -> tuple[list[str], list[Fault | Note]]:
    """The ids that a table's keys name, without blanks around them, and their faults.

    lines : of each key's row, as an editor counts them.
    """
    texts = ["" if pd.isna(key) else str(key).strip() for key in written]
    places, found = dict(enumerate(lines or [])).get, Found(str(config.table))
    if gaps := [n for n, text in enumerate(texts) if not text]:
        remedy = "fill them in, or remove the rows."
        found.fault(f"{len(gaps)} row(s) have no id.", remedy, places(gaps[0]), config.key)
    named = [_id_in(text, config.key_pattern) for text in texts]
    if other := [n for n, name in enumerate(named) if name is None]:
        unlike = listed(texts[n] for n in other)
        problem = f"{len(other)} key(s) are not as {config.section}.key_pattern states: {unlike}."
        found.fault(problem, "mend them or the pattern.", places(other[0]), config.key)
    ids = [name or text for name, text in zip(named, texts)]
    _check_repeated(ids, texts, config, places, found)
    return ids, found.all


def _id_in(key: str, pattern: str | None) -> str | None:
    if pattern is None or not key:
        return key
    found = re.match(pattern, key)
    return found[1].strip() if found and found[1] else None


def _check_repeated(
    ids: list[str], texts: list[str], config: SampleTable, places: Callable[[int], int | None], found: Found
) -> None:
    """Ids that several rows have, and ids that differ by case alone.

    places : number of a row to its line, where that is known.
    """
    by_id: dict[str, list[int]] = {}
    for number, name in enumerate(ids):
        by_id.setdefault(name, []).append(number)
    by_id.pop("", None)
    if several := {name: numbers for name, numbers in by_id.items() if len(numbers) > 1}:
        first = next(iter(several.values()))
        numbers = ", ".join(f"{places(n)}" for n in first[:_SHOWN]) + (", ..." if len(first) > _SHOWN else "")
        rows = f" (rows {numbers})" if places(first[0]) else ""
        written = f", written {listed(dict.fromkeys(texts[n] for n in first))}" if config.key_pattern else ""
        problem = f"{len(several)} id(s) have several rows: {listed(several)}; the first {len(first)}{rows}{written}."
        remedy = "keep one row for each, or join them (cells and spots add up to their patient's counts)."
        found.fault(problem, remedy, places(first[1]), config.key)
    cases: dict[str, list[str]] = {}
    for name in by_id:
        cases.setdefault(name.casefold(), []).append(name)
    if alike := [names for names in cases.values() if len(names) > 1]:
        problem = f"ids differ by case alone: {listed(name for names in alike for name in names)}."
        found.fault(problem, "write each id as slides.csv does, in one row.", column=config.key)


def unmatched(ids: Iterable[str], keys: StudyKeys) -> dict[str, int]:
    """How many of the study's ids the table lacks, and how many of the table's the study has not."""
    ids = set(ids)
    return {
        "train_ids_without_row": len(keys.train - ids),
        "other_ids_without_row": len(keys.every - keys.train - ids),
        "rows_without_id": len(ids - keys.every),
    }


def check_matches(ids: Iterable[str], keys: StudyKeys, config: SampleTable) -> list[Fault | Note]:
    """Whether the table knows the study's samples: keys that nearly match, too few that do, and the count of those that don't."""
    ids, found = set(ids), Found(str(config.table))
    _check_near(ids, keys, config, found)
    known, count = len(keys.train & ids), unmatched(ids, keys)
    problem = f"it knows {known} of the train split's {len(keys.train)} {config.key}s"
    if not known and not found.all:
        remedy = f"mend its keys, {config.section}.key or key_pattern; the study has {listed(sorted(keys.every))}."
        found.fault(f"{problem}; its keys are {listed(sorted(ids))}.", remedy, column=config.key)
    elif known < config.min_matched * len(keys.train) and not found.all:
        smaller = f"{config.section}.min_matched ({config.min_matched:g})"
        remedy = f"add the rows, mend the keys, or state a smaller {smaller}."
        found.fault(f"{problem}, which are too few.", remedy, column=config.key)
    if any(count.values()):
        others, lost = len(keys.every - keys.train), listed(sorted(keys.every - ids)) or "none is"
        fact = f"{problem} and {others - count['other_ids_without_row']} of {others} others; "
        fact += f"tiles of those that it lacks are given none of it ({lost})."
        if rows := count["rows_without_id"]:
            fact += f" {rows} row(s) are of none of the study's: {listed(sorted(ids - keys.every))}."
        found.note(fact, config.key)
    return found.all


def _check_near(ids: set[str], keys: StudyKeys, config: SampleTable, found: Found) -> None:
    """Faults of keys that the study lacks and that are nearly an id, so that a person must say what they are."""
    extra, lost = sorted(ids - keys.every), keys.every - ids
    loose = {_loose(name): name for name in sorted(keys.every)}
    written = {key: loose[_loose(key)] for key in extra if _loose(key) in loose}
    longer = {key: name for key in extra if key not in written and (name := _beginning(key, lost))}
    rest = set(extra) - set(written)
    shorter = {name: key for name in sorted(lost - {*longer.values()}) if (key := _beginning(name, rest))}
    if written:
        problem = f"{len(written)} key(s) are not written as the study's ids: {_pairs(written)}."
        found.fault(problem, "write them as slides.csv does, letter by letter.", column=config.key)
    if longer:
        pattern = _pattern_for(longer)
        stated = f"state {config.section}.key_pattern: '{pattern}', or " if pattern else ""
        problem = f"{len(longer)} key(s) extend the study's ids: {_pairs(longer)}."
        found.fault(problem, f"{stated}write the ids of slides.csv.", column=config.key)
    if shorter:
        problem = f"{len(shorter)} id(s) of the study extend a key: {_pairs(shorter)}."
        remedy = f"set {config.section}.key to the column that has them, or write whole ids."
        found.fault(problem, remedy, column=config.key)


def _loose(name: str) -> str:
    """A name without what spreadsheets and people change: case, blanks, Unicode form, kind of separator, zeros of numbers."""
    text = re.sub(r"\s+", "", unicodedata.normalize("NFKC", name)).casefold()
    text = re.sub(r"[\W_]+", "-", re.sub(r"(?<=\d)\.0$", "", text)).strip("-")
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def _beginning(name: str, among: Iterable[str]) -> str | None:
    """The longest of `among` with which a name begins, up to a separator."""
    cuts = [place for place, mark in enumerate(name) if mark in _MARKS]
    return next((name[:cut] for cut in reversed(cuts) if name[:cut] in among), None)


def _pattern_for(longer: dict[str, str]) -> str | None:
    """A pattern that takes the ids out of all those keys, by the number of parts between their separators."""
    for mark in _MARKS:
        for count in {name.count(mark) + 1 for name in longer.values()}:
            pattern = f"^({('[.]' if mark == '.' else mark).join([f'[^{mark}]+'] * count)})"
            if all(_id_in(key, pattern) == name for key, name in longer.items()):
                return pattern
    return None


def _pairs(pairs: dict[str, str]) -> str:
    return listed(f"{key}' for '{name}" for key, name in pairs.items())
