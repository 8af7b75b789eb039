"""What a value of a genotype table means: wild type, an alteration, not tested, or nothing that is known."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from histoloom.config import Genotype
from histoloom.data.genotype import WILD_TYPE

NOT_TESTED = ""
_GISTIC = {-2: "deep_deletion", -1: "loss", 0: WILD_TYPE, 1: "gain", 2: "amplification"}
_ACIDS = {
    "Ala": "A", "Arg": "R", "Asn": "N", "Asp": "D", "Cys": "C", "Gln": "Q", "Glu": "E", "Gly": "G", "His": "H", "Ile": "I",
    "Leu": "L", "Lys": "K", "Met": "M", "Phe": "F", "Pro": "P", "Ser": "S", "Thr": "T", "Trp": "W", "Tyr": "Y", "Val": "V",
    "Sec": "U", "Ter": "*",
}  # fmt: skip
_ACID = "(?:[ACDEFGHIKLMNPQRSTUVWXY*]|" + "|".join(_ACIDS) + ")"
_CHANGE = re.compile(  # R175H, W91*, P77Gfs*65, E746_A750del, p.(Arg175His), X125_splice; a place alone, as T1, is none
    rf"(?:p\.)?\(?(?P<old>X|{_ACID})\d+(?:_{_ACID}\d+)?"
    rf"(?:(?P<silent>=)|(?P<new>{_ACID})|(?:{_ACID})?(?:fs|ext)\S*|(?:del|ins|dup|>|_splice)\S*|{_ACID}{{2,}}|\?)\)?"
)
_STAGE = re.compile(r"(?:[cpyra]*[TNMG](?:\d|X|is)[A-E]?|I{1,3}[A-C]?|I?V[A-C]?)", re.IGNORECASE)
_NUMBER = re.compile(r"([+-]?)(\d+)(?:\.0*)?")


@dataclass(frozen=True)
class Reading:
    """How the values of one marker are read.

    numbers : whole number to state; empty where it is not known what numbers mean.
    kind : mutation or gistic, where numbers are read without being told which; else empty.
    """

    words: dict[str, str]
    numbers: dict[int, str]
    first: str
    kind: str

    def state(self, value: str) -> str | None:
        """The state; NOT_TESTED for not tested, None for a value that means nothing."""
        if (state := self.words.get(value.casefold())) is not None:
            return state
        number = whole_number(value)
        if number is not None:
            return self.numbers.get(number)
        parts = [part for part in re.split(r"[\s,;/|]+", value) if part]
        changes = [change for part in parts if (change := _CHANGE.fullmatch(part))]
        if not changes or len(changes) < len(parts):
            return None
        return WILD_TYPE if all(_is_silent(change) for change in changes) else self.first


def readings(columns: dict[str, Iterable[str]], config: Genotype) -> tuple[dict[str, Reading], list[str]]:
    """How each marker is read, and the markers whose numbers may be mutations as well as copy numbers."""
    words = _words(config)
    told = {name: _told(name, set(values), words, config) for name, values in columns.items()}
    some_gistic = "gistic" in told.values()
    unsure = [n for n, kind in told.items() if kind == "unsure" or (kind == "zero or one" and some_gistic)]
    first = next(iter(config.altered))
    schemes = {"gistic": _GISTIC, "mutation": {0: WILD_TYPE, 1: first}, "zero or one": {0: WILD_TYPE, 1: first}}
    guessed = {"gistic": "gistic", "zero or one": "mutation"} if config.numbers == "auto" else {}
    how = {kind: Reading(words, schemes.get(kind, {}), first, guessed.get(kind, "")) for kind in {*told.values()}}
    return {name: how[kind] for name, kind in told.items()}, unsure


def _words(config: Genotype) -> dict[str, str]:
    words = {value.casefold(): state for state, values in config.altered.items() for value in values}
    words |= {value.casefold(): WILD_TYPE for value in config.wild_type}
    return words | {value.casefold(): NOT_TESTED for value in config.not_tested}


def _told(name: str, values: set[str], words: dict[str, str], config: Genotype) -> str:
    """What a marker's numbers are: as params state, or as they show by themselves; empty of none.

    Levels of GISTIC go below 0 or have 2 beside 0; 0 and 1 alone are a mutation's, unless other markers have levels.
    """
    stated = config.numbers if isinstance(config.numbers, str) else config.numbers.get(name, "auto")
    if stated != "auto":
        return stated
    read = {value: whole_number(value) for value in values if value.casefold() not in words}
    numbers = {number for number in read.values() if number is not None}
    if not numbers or not numbers <= set(_GISTIC):
        return ""
    if min(numbers) < 0 or any(value.startswith("+") for value, number in read.items() if number is not None):
        return "gistic"
    if 2 in numbers:
        return "gistic" if 0 in numbers else "unsure"
    return "zero or one" if 1 in numbers else "mutation"


def whole_number(value: str) -> int | None:
    """A whole number, also as `1.0`, which tables with gaps are saved as; None for anything else."""
    found = _NUMBER.fullmatch(value.replace("\N{MINUS SIGN}", "-"))
    return int(found[1] + found[2]) if found else None


def _is_silent(change: re.Match) -> bool:
    old, new = (_ACIDS.get(change[group], change[group]) for group in ("old", "new"))
    return bool(change["silent"]) or old == new


def look_like_stages(values: Iterable[str]) -> bool:
    """Whether all of them can be stages or grades, such as T1, N0, G2 and IIIA, some of which can be protein changes too."""
    values = list(values)
    return bool(values) and all(_STAGE.fullmatch(value) for value in values)
