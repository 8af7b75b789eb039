"""A genotype as text: `TP53=altered;ERBB2=gain;KRAS=wt`; a marker that was not tested is left out."""

from __future__ import annotations

WILD_TYPE = "wt"


def parse_genotype(text: str | None) -> dict[str, str]:
    """Marker to state; of None or the empty text, nothing was tested."""
    if text is None or text != text or not text:
        return {}
    return dict(pair.split("=", 1) for pair in text.split(";"))


def write_genotype(states: dict[str, str]) -> str:
    return ";".join(f"{marker}={state}" for marker, state in states.items())
