"""One row of slides.csv: its values read and checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from histoloom.config import Tile
from histoloom.data import ids
from histoloom.data.csv_table import as_number
from histoloom.data.found import Found, add_it
from histoloom.data.lineage_match import id_problem
from histoloom.data.schema import DATASET, REQUIRED_SLIDE_COLUMNS, SPLITS

FILE_COLUMNS = dict.fromkeys(("path", "mask", "predicted", "instances", "partner"), "slides_root") | {
    "annotations": "annotations_root"
}
"""Columns that name files, to the param that names the folder of these."""
PREDICTION = "prediction.json"
"""What `histoloom predict` says of the masks beside it; the column predicted names it."""
_SOURCES = {"polygons": ("annotations",), "raster": ("mask", "instances"), "slide": ("label",)}
"""Of labels and masks, to the columns that state them."""
_STATING = ("annotations", "mask", "instances", "label", "predicted")
_LEAVE_EMPTY = "leave it empty, or use other words if it means something."


@dataclass(frozen=True)
class SlideEntry:
    """One row of slides.csv, its paths resolved under their roots.

    predicted : what states the masks beside it, which a learner predicted of the slide.
    """

    slide_id: str
    path: Path
    patient_id: str
    row: int
    mpp: float | None = None
    label: str | None = None
    caption: str | None = None
    split: str | None = None
    annotations: Path | None = None
    mask: Path | None = None
    predicted: Path | None = None
    instances: Path | None = None
    partner: Path | None = None
    extra: dict[str, str] = field(default_factory=dict)

    def is_unlabelled(self, config: Tile) -> bool:
        """Whether it states nothing that labels and masks are taken from, as `tile.labels.unlabelled: keep` allows."""
        return _is_unlabelled({name: getattr(self, name) for name in _STATING}, config)

    def masks_annotated(self, config: Tile) -> bool:
        """Whether it names an annotation that `tile.masks` reads; of other sources it needs none."""
        source = config.masks.source
        if source == "polygons":
            return self.annotations is not None
        return source != "raster" or self.mask is not None or self.instances is not None


def _is_unlabelled(stated: Mapping[str, object], config: Tile) -> bool:
    """Whether a row, as column to what it states or None, names none of the sources of labels and masks, and may."""
    found = {source: any(stated.get(c) is not None for c in columns) for source, columns in _SOURCES.items()}
    told = [found[source] for source in (config.labels.source, config.masks.source) if source in found]
    kept = config.labels.unlabelled == "keep" and stated.get("predicted") is None
    return kept and bool(told) and not any(told)


def read_entry(
    row: dict[str, str], number: int, files: dict[str, Path], config: Tile, found: Found
) -> SlideEntry | None:
    """A row as an entry, its faults to `found`; None where it names no slide, no patient or no file.

    number : of its line, as an editor counts.
    files : that it names and that are there, by column.
    """
    values = {k: v or None for k, v in row.items()}
    slide_id, patient_id, whole = values.get("slide_id"), values.get("patient_id"), True
    for column in REQUIRED_SLIDE_COLUMNS:
        if values.get(column) is None:
            found.fault("it is empty.", "fill it in.", number, column)
            whole = False
    if slide_id and (wrong := id_problem(slide_id) or ids.folder_problem(slide_id)):
        found.fault(*wrong, number, "slide_id")
        whole = False
    if patient_id and (wrong := id_problem(patient_id)):
        found.fault(*wrong, number, "patient_id")
    mpp, split = _scale(values.get("mpp"), number, found), _split(values.get("split"), number, found)
    label, caption = values.get("label"), values.get("caption")
    _check_label(label, number, config, found)
    if not _is_unlabelled(values, config):
        _check_sources(values, number, config, found)
    _check_dataset(values.get("dataset"), number, found)
    known = ("slide_id", "patient_id", "label", "caption", "split")
    extra = {k: v or "" for k, v in values.items() if k not in (*known, *FILE_COLUMNS, "mpp")}
    words = {column: value for column, value in extra.items() if column != "dataset"}
    _check_words(words | {"caption": caption or ""}, number, found)
    path, predicted = (files.pop(column, None) for column in ("path", "predicted"))
    if predicted is not None and predicted.name != PREDICTION:
        problem = f"'{predicted.name}' does not say what was predicted."
        found.fault(problem, f"name the {PREDICTION} that `histoloom predict` wrote.", number, "predicted")
    if not whole or slide_id is None or patient_id is None or path is None:
        return None
    if "{caption}" in config.caption and caption is None:
        remedy = "write a caption, or don't quote it."
        found.fault("it is empty, and tile.caption quotes it.", remedy, number, "caption")
    return SlideEntry(
        slide_id, path, patient_id, number, mpp, label, caption, split, predicted=predicted, **files, extra=extra
    )


def _scale(value: str | None, row: int, found: Found) -> float | None:
    if value is None:
        return None
    remedy = "state micrometres per pixel at level 0, such as 0.25."
    try:
        number = as_number(value)
    except ValueError as error:
        problem = str(error)
        if re.fullmatch(r"[\d.,]+ ?([^\d.,\s].*)|[xX×] ?\d+", value):
            problem = f"'{value}' is more than a number: a scale is stated without its unit."
        found.fault(problem, remedy, row, "mpp")
        return None
    if 0.01 <= number <= 100:
        return number
    other = {"nanometres": number / 1000, "millimetres": number * 1000}
    meant = [f" In {unit} it would be {scale:g} µm/px." for unit, scale in other.items() if 0.05 <= scale <= 10]
    found.fault(f"'{value}' is no scale in µm/px.{''.join(meant[:1])}", remedy, row, "mpp")
    return None


def _split(split: str | None, row: int, found: Found) -> str | None:
    if split in (None, *SPLITS):
        return split
    found.fault(f"unknown split '{split}'.", "use train, val or test, or leave it empty.", row, "split")
    return None


def _check_words(values: dict[str, str], row: int, found: Found) -> None:
    for column, value in values.items():
        if ids.is_null(value):
            found.fault(f"'{value}' stands for a missing value.", _LEAVE_EMPTY, row, column)


def _check_label(label: str | None, row: int, config: Tile, found: Found) -> None:
    classes = config.labels.classes
    if label is not None and label not in classes and ids.is_null(label):
        _check_words({"label": label}, row, found)
    elif label is not None and label not in classes:
        remedy = f"{add_it(label, classes)} to tile.labels.classes in params.yaml."
        found.fault(f"unknown label '{label}'.", remedy, row, "label")


def _check_sources(values: Mapping[str, str | None], row: int, config: Tile, found: Found) -> None:
    """Faults of a slide that states a part of what labels and masks are taken from, or nothing where nothing may be missing."""
    told = [config.labels.source] + [config.masks.source] * (values.get("predicted") is None)
    keep = "set tile.labels.unlabelled: keep, so that it stays without labels"
    if config.labels.source == "slide" and values.get("label") is None:
        problem = "it is empty, and params take labels from here (tile.labels.source: slide)."
        found.fault(problem, f"fill it in, or {keep}.", row, "label")
    if "polygons" in told and values.get("annotations") is None:
        problem = "it is empty, and params take labels or masks from polygons."
        found.fault(problem, f"name its GeoJSON, or {keep}.", row, "annotations")
    if "raster" in told and values.get("mask") is None and values.get("instances") is None:
        problem = "no 'mask' or 'instances' raster, and params take labels or masks from rasters."
        found.fault(problem, f"name one, or {keep}.", row, "mask")


def _check_dataset(name: str | None, row: int, found: Found) -> None:
    if name and ids.is_missing(name):
        remedy = "name the set, write own if it is of none, or leave it empty."
        found.fault(f"'{name}' says nothing of a data set.", remedy, row, "dataset")
    elif name and not DATASET.fullmatch(name):
        remedy = "use letters, digits, '-', '_' and '.', as in camelyon16."
        found.fault(f"'{name}' can't name a data set.", remedy, row, "dataset")
