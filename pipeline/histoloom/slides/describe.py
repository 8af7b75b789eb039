"""What is said of a tile: its label, its caption, its split group, and its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from histoloom.config import Labels, Tile
from histoloom.data.groups import split_group
from histoloom.data.manifest import Manifest
from histoloom.data.slide_fields import written
from histoloom.data.tile_sets.tiles import SetSlide
from histoloom.slides.grid import Corner
from histoloom.slides.job import SlideJob
from histoloom.slides.slide import Slide


@dataclass(frozen=True)
class TilePlace:
    """Where a tile lies on its slide: `corner` is in pixels of the tile's scale, `mpp`."""

    slide: Slide
    corner: Corner
    mpp: float

    @property
    def downsample(self) -> float:
        return self.mpp / self.slide.mpp

    @property
    def corner_level0_px(self) -> tuple[int, int]:
        x, y = self.corner
        return round(x * self.downsample), round(y * self.downsample)


@dataclass(frozen=True)
class TileLabel:
    """What the annotations that the study may see say of a tile.

    class_fractions : class to the fraction of the tile that it covers.
    spot : its nearest spot, if there is one within reach.
    """

    label: str | None = None
    class_fractions: dict[str, float] = field(default_factory=dict)
    spot: pd.Series | None = None


def class_of(labels: Labels, fractions: Mapping[str, float]) -> str | None:
    """The class that covers enough of a tile."""
    best = max((name for name in fractions if name in labels.classes), key=lambda n: fractions[n], default=None)
    return best if best is not None and fractions[best] >= labels.min_fraction else None


def class_fractions(ids: np.ndarray, classes: tuple[str, ...]) -> dict[str, float]:
    """Class to the fraction of a map of class ids that it covers; classes that cover nothing are left out."""
    counts = np.bincount(ids.ravel(), minlength=len(classes) + 1)[1:]
    return {name: float(count) / ids.size for name, count in zip(classes, counts) if count}


def label_tile(job: SlideJob, ids: np.ndarray | None, spot: pd.Series | None) -> TileLabel:
    """The label of a tile, from the class ids (h, w) of its pixels, its spot or its slide, as params say."""
    labels = job.config.labels
    fractions = {} if ids is None else class_fractions(ids, labels.classes)
    if labels.source == "slide":
        return TileLabel(job.entry.label, fractions, spot)
    if labels.source == "spots":
        return TileLabel(None if spot is None else spot["label"], fractions, spot)
    return TileLabel(class_of(labels, fractions), fractions, spot)


@dataclass(frozen=True)
class TileFacts:
    """What is known of a tile.

    place : its ids, its group and split, its corner and its scale, as its row has them.
    caption, extra : what is stated of its slide.
    measured : what a mask by stain shows, in words; empty where there is none.
    masked : whether the tile's mask says what it shows. predicted : whether a learner says it in place of that.
    repaired : fraction of its pixels that a model made.
    """

    place: dict[str, Any]
    caption: str | None
    extra: dict[str, str]
    found: TileLabel
    tissue_fraction: float
    measured: str
    masked: bool
    predicted: bool = False
    repaired: float = 0.0

    def row(self, config: Tile) -> dict[str, Any]:
        """Its row (schema.TILE_ROW)."""
        label, spot = self.found.label, self.found.spot
        fields = {
            **{name: "" if spot is None else str(spot.get(name, "")) for name in ("cluster", "annotation")},
            **self.extra,
            "caption": self.caption or "",
            "label": label or "unlabelled",
            "composition": describe(self.found.class_fractions, label, self.tissue_fraction),
            "measured": self.measured,
        }
        own = {name: value for name, value in self.extra.items() if value and name != "dataset"}
        return {
            **self.place,
            "source": "real",
            "label": label,
            "tissue_fraction": self.tissue_fraction,
            "caption": caption_of(config, fields),
            "spot_id": None if spot is None else spot["spot_id"],
            "masked": self.masked,
            "predicted": self.predicted,
            "repaired": self.repaired,
            "dataset": self.extra.get("dataset") or None,
            "slide_fields": written(own),
        }


def group_of(job: SlideJob, place: TilePlace) -> str:
    """The split group of a tile's middle."""
    half = job.config.tile_px * place.downsample / 2
    x, y = place.corner_level0_px
    return split_group(job.entry, job.config, (x + half, y + half), place.slide.size)


def caption_of(config: Tile, fields: Mapping[str, str]) -> str:
    """The caption that params' template makes of a tile's fields, without what empty ones leave between commas."""
    return ", ".join(part.strip() for part in config.caption.format_map(fields).split(", ") if part.strip())


_OF_TILES = ("label", "composition", "measured", "cluster", "annotation", "caption")
"""Fields of captions that only tiles tell, unless their slide or their spot does."""


def known_captions(manifest: Manifest, config: Tile) -> tuple[set[str], bool]:
    """The captions that tiles will have, as far as the manifests tell; and whether they tell all of them.

    A field that only a tile tells, such as {composition}, is left empty: what is too long without it is too long with it.
    """
    of_slide = {"label"} if config.labels.source == "slide" else set()
    of_spot = {"label", "cluster", "annotation"} if config.labels.source == "spots" else set()
    read = set() if config.summarise else {"caption"}
    captions = set()
    for entry in manifest.stated:
        fields = dict.fromkeys(_OF_TILES, "") | entry.extra
        fields |= {"label": entry.label or "unlabelled"} if of_slide or isinstance(entry, SetSlide) else {}
        fields |= {"caption": entry.caption or ""} if read else {}
        spots: list[dict] = [{}]
        if of_spot and manifest.spots is not None:
            mine = manifest.spots[manifest.spots["slide_id"] == entry.slide_id]
            spots = mine[[name for name in sorted(of_spot) if name in mine]].drop_duplicates().to_dict("records")
        captions |= {caption_of(config, fields | spot) for spot in spots}
    return captions, not ({*_OF_TILES} - of_slide - of_spot - read) & set(config.quoted)


def describe(fractions: dict[str, float], label: str | None, tissue_fraction: float) -> str:
    """A tile's composition in words, from the fraction of it that each class covers: 'mostly keratin, some epidermis'."""
    words = []
    for name, fraction in sorted(fractions.items(), key=lambda item: -item[1]):
        if fraction >= 0.05:
            words.append(("mostly " if fraction >= 0.6 else "some " if fraction < 0.2 else "") + name)
    text = ", ".join(words) or label or "tissue"
    return text + (", open space" if tissue_fraction < 0.75 else "")
