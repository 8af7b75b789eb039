"""What is said of a tile: its label, its caption, its split group, and its row."""

from __future__ import annotations

import numpy as np
import pandas as pd

from histoloom.config import Tile
from histoloom.data.groups import split_group
from histoloom.data.manifest import Manifest
from histoloom.slides.job import SlideJob
from histoloom.slides.open import Slide


def class_shares(ids: np.ndarray | None, classes: tuple[str, ...]) -> dict[str, float]:
    if ids is None:
        return {}
    counts = np.bincount(ids.ravel(), minlength=len(classes) + 1)[1:]
    return {name: float(count) / ids.size for name, count in zip(classes, counts) if count}


def label_of(job: SlideJob, shares: dict[str, float], spot: pd.Series | None) -> str | None:
    labels = job.config.labels
    if labels.source == "slide":
        return job.entry.label
    if labels.source == "spots":
        return None if spot is None else spot["label"]
    best = max(shares, key=lambda name: shares[name], default=None)
    return best if best is not None and shares[best] >= labels.min_fraction else None


def tile_row(
    job: SlideJob,
    slide: Slide,
    corner: tuple[int, int],
    mpp: float,
    label: str | None,
    shares: dict[str, float],
    tissue_fraction: float,
    spot: pd.Series | None,
    words: str,
    masked: bool,
) -> dict:
    config, entry, downsample = job.config, job.entry, mpp / slide.mpp
    x, y = round(corner[0] * downsample), round(corner[1] * downsample)
    group = group_of(job, slide, corner, downsample)
    fields = {
        "label": label or "unlabelled",
        "caption": entry.caption or "",
        **entry.extra,
        **{name: "" if spot is None else str(spot.get(name, "")) for name in ("cluster", "annotation")},
        "composition": describe(shares, label, tissue_fraction),
        "measured": words,
    }
    return {
        "tile_id": f"{entry.slide_id}_{x}_{y}" + ("" if mpp == config.mpp else f"_{mpp:g}"),
        "source": "real",
        "slide_id": entry.slide_id,
        "patient_id": entry.patient_id,
        "split_group": group,
        "split": job.splits[group],
        "label": label,
        "x_level0_px": x,
        "y_level0_px": y,
        "mpp": mpp,
        "tissue_fraction": tissue_fraction,
        "caption": _without_gaps(config.caption.format_map(fields)),
        "spot_id": None if spot is None else spot["spot_id"],
        "masked": masked,
        "dataset": entry.extra.get("dataset") or None,
    }


def group_of(job: SlideJob, slide: Slide, corner: tuple[int, int], downsample: float) -> str:
    x, y = (round(place * downsample) + job.config.tile_px * downsample / 2 for place in corner)
    return split_group(job.entry, job.config, x, y, slide.width, slide.height)


def _without_gaps(caption: str) -> str:
    """A caption without what its empty fields left between commas."""
    return ", ".join(part.strip() for part in caption.split(", ") if part.strip())


def known_captions(manifest: Manifest, config: Tile) -> tuple[set[str], bool]:
    """The captions that tiles will have, as far as the manifests tell; and whether they tell all of them.

    A field that only a tile tells, such as {composition}, is left empty: what is too long without it is too long with it.
    """
    of_slide = {"label"} if config.labels.source == "slide" else set()
    of_spot = {"label", "cluster", "annotation"} if config.labels.source == "spots" else set()
    read = set() if config.summarise else {"caption"}
    captions = set()
    for entry in manifest.slides:
        fields = (
            dict.fromkeys(("label", "composition", "measured", "cluster", "annotation", "caption"), "") | entry.extra
        )
        fields |= {"label": entry.label or "unlabelled"} if of_slide else {}
        fields |= {"caption": entry.caption or ""} if read else {}
        mine = (
            manifest.spots[manifest.spots["slide_id"] == entry.slide_id]
            if of_spot and manifest.spots is not None
            else None
        )
        columns = [] if mine is None else [name for name in sorted(of_spot) if name in mine]
        spots = [{}] if mine is None else mine[columns].drop_duplicates().to_dict("records")
        captions |= {_without_gaps(config.caption.format_map(fields | spot)) for spot in spots}
    told_by_tiles = {"label", "composition", "measured", "cluster", "annotation", "caption"} - of_slide - of_spot - read
    return captions, not told_by_tiles & set(config.quoted)


def describe(shares: dict[str, float], label: str | None, tissue_fraction: float) -> str:
    """A tile's composition in words, from the area that each class covers: 'mostly keratin, some epidermis'."""
    words = []
    for name, share in sorted(shares.items(), key=lambda item: -item[1]):
        if share >= 0.05:
            words.append(("mostly " if share >= 0.6 else "some " if share < 0.2 else "") + name)
    text = ", ".join(words) or label or "tissue"
    return text + (", open space" if tissue_fraction < 0.75 else "")
