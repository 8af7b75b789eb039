"""The dataset card, written from facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader

CARDS = Environment(loader=PackageLoader("histoloom.emit", "."), autoescape=False)


@dataclass(frozen=True)
class CardFacts:
    """All that the card says.

    counts, unlabelled : split to source to label to tiles, and split to source to tiles that were left out.
    generators : sha256 to a lineage record and, in `own`, how many of its groups are this study's.
    unknown : ancestors that nobody knows, as they may be named outside.
    refused : label of which too little passed, to how many were `synthetic` and how many of them `passed`.
    not_told : label to its accepted tiles of which the filter `realism` could not tell.
    synthetic, accepted : synthetic tiles to augment, and those of them that passed the filters.
    patients : of the real tiles. captions : whether captions leave.
    alone : whether synthetic tiles leave without real ones. audit : what they tell of the real ones then (quality/audit.py).
    """

    name: str
    licence: str
    version: str
    formats: tuple[str, ...]
    tile_px: int
    mpp: float
    classes: tuple[str, ...]
    labelled: bool
    counts: dict[str, dict[str, dict[str, int]]]
    unlabelled: dict[str, dict[str, int]]
    generators: dict[str, dict]
    unknown: list[str]
    refused: dict[str, dict[str, int]]
    not_told: dict[str, int]
    synthetic: int
    accepted: int
    patients: int
    captions: bool
    alone: bool
    audit: Mapping[str, Any]


def write_card(facts: CardFacts) -> str:
    """The card as Markdown with the front matter that HF's hub reads."""
    return CARDS.get_template("dataset_card.md.jinja").render(**vars(facts))
