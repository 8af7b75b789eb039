"""What became of whole sets of tiles, from what their parts say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypedDict

from histoloom.slides.left_out import MUCH_OUT_OF_FOCUS
from histoloom.slides.tile_set_part import SetResult

_NAMED = 5


class SetFacts(TypedDict):
    """What became of a set: numbers of tiles; of `bad`, `resampled` and `cut`, of pictures.

    first_bad : the first that can't be used, each with why.
    """

    tiles: int
    bad: int
    first_bad: list[str]
    unlabelled: int
    hidden: int
    out_of_focus: int
    resampled: int
    cut: int
    tissue_fraction: float
    stain: dict[str, int]


def summed(parts: Sequence[SetResult]) -> dict[str, SetFacts]:
    """Name of a set to what became of it."""
    named: dict[str, list[SetResult]] = {}
    for part in parts:
        named.setdefault(part.name, []).append(part)
    return {name: _sum(mine) for name, mine in named.items()}


def _sum(parts: Sequence[SetResult]) -> SetFacts:
    facts = [part.facts for part in parts]
    bad = [f"{name}: {reason}" for of in facts for name, reason in of["bad"]]
    tiles, stain = sum(of["tiles"] for of in facts), Counter[str]()
    for of in facts:
        stain.update(of["stain"])
    return {
        "tiles": tiles,
        "bad": len(bad),
        "first_bad": bad[:_NAMED],
        "unlabelled": sum(of["unlabelled"] for of in facts),
        "hidden": sum(sum(of["hidden"].values()) for of in facts),
        "out_of_focus": sum(of["out_of_focus"] for of in facts),
        "resampled": sum(of["resampled"] for of in facts),
        "cut": sum(of["cut"] for of in facts),
        "tissue_fraction": round(sum(of["tissue_fraction"] * of["tiles"] for of in facts) / max(tiles, 1), 4),
        "stain": dict(stain),
    }


def set_columns(facts: SetFacts) -> dict[str, object]:
    """A set's row of slides.csv."""
    stain = "; ".join(f"{note}: {count}" for note, count in facts["stain"].items()) or "none"
    return {
        "tiles": facts["tiles"],
        "mpp_source": "set",
        "stain": stain,
        "tissue_fraction": facts["tissue_fraction"],
        "out_of_focus": facts["out_of_focus"],
        "reason": _words(facts) if facts["bad"] else "",
    }


def _words(facts: SetFacts) -> str:
    more = f"; and {facts['bad'] - len(facts['first_bad'])} more" if facts["bad"] > len(facts["first_bad"]) else ""
    return f"{facts['bad']} picture(s) left out: {'; '.join(facts['first_bad'])}{more}"


def check_bad(parts: Sequence[SetResult], most: int) -> str | None:
    """Why no more is done, where more pictures of all sets than `most` can't be used; else None."""
    sets = summed(parts)
    count = sum(of["bad"] for of in sets.values())
    if count <= most:
        return None
    lines = [f"  - {name}: {_words(of)}" for name, of in sets.items() if of["bad"]]
    return "\n".join(
        [
            f"{count:,} picture(s) of sets can't be used, and tile.max_bad_tiles allows {most}:",
            *lines,
            "Mend or remove them, or raise tile.max_bad_tiles. What is good is kept.",
        ]
    )


def remarks_on_sets(sets: Mapping[str, SetFacts]) -> list[str]:
    """What was done to a set's pictures and what is left out of it, in a sentence each."""
    lines = []
    for name, of in sets.items():
        if of["bad"]:
            lines.append(f"set '{name}': {_words(of)}.")
        if of["resampled"] or of["cut"]:
            lines.append(
                f"set '{name}': {of['resampled']:,} picture(s) brought to tile.mpp, {of['cut']:,} cut to tiles."
            )
        if of["unlabelled"] or of["hidden"]:
            lines.append(
                f"set '{name}': {of['unlabelled']:,} tile(s) without a label, {of['hidden']:,} whose label is hidden."
            )
        if of["out_of_focus"] > MUCH_OUT_OF_FOCUS * of["tiles"]:
            words = "tile.tissue.out_of_focus says whether they are kept"
            lines.append(f"set '{name}': {of['out_of_focus']:,} tile(s) are out of focus; {words}.")
    return lines
