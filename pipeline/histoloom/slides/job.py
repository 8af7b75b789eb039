"""One slide's part of the tile store, as a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from histoloom.config import Tile
from histoloom.data.commit import digest, hash_tree
from histoloom.data.manifest import SlideEntry
from histoloom.slides.open import slide_sha256


@dataclass(frozen=True)
class SlideJob:
    """Everything that decides one slide's part; plain data, so that any worker can do it.

    shares : split to the share of its labels that the study sees (data/label_budget.py), where it doesn't see all.
    """

    entry: SlideEntry
    config: Tile
    splits: dict[str, str]
    spots: pd.DataFrame | None
    parts: Path
    code: str
    shares: dict[str, float] = field(default_factory=dict)
    seed: int = 0

    @property
    def fingerprint(self) -> str:
        """Covers the slide's contents and what is stated about it, and nothing about other slides."""
        entry = self.entry
        elsewhere = (
            "manifest",
            "spots",
            "annotations_root",
            "slides_root",
            "max_bad_slides",
            "max_outside_fraction",
            "split",
        )
        hiding = {"labels": {"fraction", "fraction_of"}}
        config = self.config.model_dump(exclude={**dict.fromkeys(elsewhere, True), **hiding})
        split = self.config.split.model_dump(exclude={"fractions", "assign"})
        spots = None if self.spots is None else self.spots.to_dict("records")
        stated_in = (entry.annotations, entry.mask, entry.instances)
        files = [slide_sha256(entry.path), *(hash_tree(path) for path in stated_in if path is not None)]
        stated: list[Any] = [entry.slide_id, entry.patient_id, entry.mpp, entry.label, entry.caption, entry.extra]
        if self.shares:
            stated += [self.shares, self.seed]
        return digest([config, split, self.splits, spots, files, stated, self.code])[:16]

    @property
    def part(self) -> str:
        return f"{self.entry.slide_id}@{self.fingerprint}"
