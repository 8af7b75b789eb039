"""One slide's part of the tile store, as a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from histoloom.config import Tile
from histoloom.data.commit import digest, hash_tree
from histoloom.data.slide_entry import SlideEntry
from histoloom.slides.open import slide_sha256

DECIDED_ELSEWHERE: dict[str, Any] = {
    **dict.fromkeys(("manifest", "sets", "spots", "annotations_root", "slides_root", "remote_cache"), True),
    **dict.fromkeys(("max_bad_slides", "max_bad_tiles", "max_outside_fraction", "split"), True),
    "labels": {"fraction", "fraction_of"},
}
"""Of the section `tile`: what says nothing of one part, or is in what its job has of it."""


class Repairs(Protocol):
    """What makes regions of tiles anew. sha256 : of all that it makes them with."""

    @property
    def sha256(self) -> str: ...

    def __call__(self, picture: np.ndarray, free: np.ndarray, tile_id: str) -> np.ndarray:
        """A tile (h, w, 3) uint8, anew where `free` (h, w) bool says so."""


@dataclass(frozen=True)
class SlideJob:
    """Everything that decides one slide's part; plain data, so that any worker can do it.

    splits : split group to split, of the slide's own groups.
    spots : those of the slide.
    parts : the folder of all parts.
    code : sha256 of the code that decides what a part holds.
    visible_fractions : split to the fraction of labels that are visible (data/label_budget.py), where some are hidden.
    seed : the study's.
    repair : what makes pen on train tiles anew; None where tile.repair names no model.
    woven : whether the slide is one that this study wove.
    """

    entry: SlideEntry
    config: Tile
    splits: dict[str, str]
    spots: pd.DataFrame | None
    parts: Path
    code: str
    visible_fractions: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    repair: Repairs | None = None
    woven: bool = False

    @property
    def reads_prediction(self) -> bool:
        """Whether tiles may need a learner's mask: nobody annotated the slide, or something of it is hidden."""
        return not self.entry.masks_annotated(self.config) or bool(self.visible_fractions)

    @property
    def fingerprint(self) -> str:
        """Covers the slide's contents and what is stated about it, and nothing about other slides."""
        entry = self.entry
        config = self.config.model_dump(exclude=DECIDED_ELSEWHERE)
        split = self.config.split.model_dump(exclude={"fractions", "assign"})
        spots = None if self.spots is None else self.spots.to_dict("records")
        annotations = (entry.annotations, entry.mask, entry.predicted, entry.instances, entry.partner)
        files = [slide_sha256(entry.path), *(hash_tree(path) for path in annotations if path is not None)]
        stated: list[Any] = [entry.slide_id, entry.patient_id, entry.mpp, entry.label, entry.caption, entry.extra]
        if self.visible_fractions:
            stated += [self.visible_fractions, self.seed]
        if self.repair is not None:
            stated += [self.repair.sha256, self.seed]
        return digest([config, split, self.splits, spots, files, stated, self.code])[:16]

    @property
    def part(self) -> str:
        return f"{self.entry.slide_id}@{self.fingerprint}"
