"""A genotype as text: `TP53=altered;ERBB2=gain;KRAS=wt`; a marker that was not tested is left out."""

from __future__ import annotations

WILD_TYPE = "wt"
SEPARATORS = "=;"
"""What separates a marker from its state and from the next, and so can't be in a name."""


def parse_genotype(text: str | None) -> dict[str, str]:
    """Marker to state; of None or the empty text, nothing was tested."""
    if text is None or text != text or not text:
        return {}
    return dict(pair.split("=", 1) for pair in text.split(";"))


def write_genotype(states: dict[str, str]) -> str:
    """The text that `parse_genotype` reads.

    Raises
    ------
    ValueError
        for a name that is empty or holds a separator, which would be read as something else.
    """
    for name in [*states, *states.values()]:
        if not name or any(mark in name for mark in SEPARATORS):
            raise ValueError(f"{name!r} can't be in a genotype's text: it is empty, or holds '=' or ';'")
    return ";".join(f"{marker}={state}" for marker, state in states.items())
