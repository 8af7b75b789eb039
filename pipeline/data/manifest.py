"""The user's manifests, read and checked: every fault at once, with row, column and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from pipeline.config import Tile
from pipeline.data.schema import (
    OPTIONAL_SLIDE_COLUMNS,
    REQUIRED_SLIDE_COLUMNS,
    SPLITS,
    SPOT_COLUMNS,
)
from pipeline.errors import Fault, ManifestFaults, Note, faults_among

_FILE_COLUMNS = {
    "path": "slides_root",
    "mask": "slides_root",
    "instances": "slides_root",
    "annotations": "annotations_root",
}
_NOT_QUOTED = (*_FILE_COLUMNS, "mpp", "slide_id", "patient_id", "split")
_CAPTION_FIELDS = ("label", "composition", "caption", "measured", "cluster", "annotation")


@dataclass(frozen=True)
class SlideEntry:
    """One row of slides.csv, its paths resolved under their roots."""

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
    instances: Path | None = None
    extra: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    slides: tuple[SlideEntry, ...]
    spots: pd.DataFrame | None


class _Collector:
    def __init__(self, where: str):
        self.where, self.faults = where, []

    def add(self, problem: str, remedy: str, row: int | None = None, column: str | None = None) -> None:
        self.faults.append(Fault(self.where, problem, remedy, row, column))


def read_manifest(config: Tile) -> Manifest:
    """Read slides.csv and the spot table that params name.

    Raises
    ------
    ManifestFaults
        with every fault found. Whether a slide's file can be read is not asked here: `tile` quarantines
        those that can't, and `validate` reports them.
    """
    manifest, found = check_manifest(config)
    if faults := faults_among(found):
        raise ManifestFaults(faults)
    return manifest


def check_manifest(config: Tile) -> tuple[Manifest, list[Fault | Note]]:
    """Read the manifests as far as they go, with the list of their faults and notes."""
    table, found = _read_table(Path(config.manifest), REQUIRED_SLIDE_COLUMNS, OPTIONAL_SLIDE_COLUMNS)
    if table is None:
        return Manifest((), None), found.faults
    entries = [
        _entry(row, number, config, found) for number, row in zip(range(2, len(table) + 2), table.to_dict("records"))
    ]
    entries = [entry for entry in entries if entry is not None]
    _check_quoted(table.columns, config, found)
    _check_ids(entries, found)
    _check_groups(entries, set(table["patient_id"].str.strip()) - {""}, config, found)
    spots, spot_faults = _read_spots(config, {e.slide_id for e in entries})
    return Manifest(tuple(entries), spots), found.faults + spot_faults


def _read_table(path: Path, required: tuple[str, ...], optional: tuple[str, ...]):
    found = _Collector(str(path))
    if not path.is_file():
        found.add("the file is missing.", "write it (docs: Bring your own slides), or mend the path in params.yaml.")
        return None, found
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        found.add(
            f"it is not a readable CSV ({str(error).strip()}).", "save it as comma-separated UTF-8 with a header line."
        )
        return None, found
    for column in table.columns:
        if column not in required + optional and not str(column).startswith("meta_"):
            near = difflib.get_close_matches(str(column), required + optional, 1)
            hint = f"rename it to '{near[0]}'" if near else "remove it"
            found.add("unknown column.", f"{hint}, or begin its name with meta_ to keep it.", 1, str(column))
    lacking = [c for c in required if c not in table.columns]
    for column in lacking:
        found.add("the column is missing.", "add it.", 1, column)
    if not lacking and table.empty:
        found.add("it has no rows.", "add a row for each item.")
    return (None if lacking else table), found


def _entry(row: dict[str, str], number: int, config: Tile, found: _Collector) -> SlideEntry | None:
    values = {k: (v.strip() or None) for k, v in row.items() if isinstance(v, str)}
    whole = True
    for column in REQUIRED_SLIDE_COLUMNS:
        if values.get(column) is None:
            found.add("it is empty.", "fill it in.", number, column)
            whole = False
    slide_id = values.get("slide_id") or ""
    if slide_id and (not all(c.isalnum() or c in "-_." for c in slide_id) or slide_id.startswith(".")):
        found.add(f"'{slide_id}' can't name a folder.", "use letters, digits, '-', '_' and '.'.", number, "slide_id")
        whole = False
    paths = {
        column: _resolve(values.get(column), Path(getattr(config, root)), number, column, found)
        for column, root in _FILE_COLUMNS.items()
    }
    mpp = _number(values.get("mpp"), number, found)
    if values.get("split") not in (None, *SPLITS):
        found.add(f"unknown split '{values['split']}'.", "use train, val or test, or leave it empty.", number, "split")
    _check_label(values.get("label"), number, config, found)
    _check_sources(values, number, config, found)
    if not whole or paths["path"] is None:
        return None
    if "{caption}" in config.caption and values.get("caption") is None:
        found.add("it is empty, and tile.caption quotes it.", "write a caption, or don't quote it.", number, "caption")
    known = ("slide_id", "patient_id", "label", "caption", "split")
    extra = {k: v or "" for k, v in values.items() if k not in (*known, *_FILE_COLUMNS, "mpp")}
    return SlideEntry(**{k: values.get(k) for k in known}, **paths, row=number, mpp=mpp, extra=extra)


def _resolve(value: str | None, root: Path, row: int, column: str, found: _Collector) -> Path | None:
    if value is None:
        return None
    path = root / value
    if not path.resolve().is_relative_to(root.resolve()):
        found.add(
            f"'{value}' leads out of {root}.",
            f"put the file under {root}, or name another root in params.yaml.",
            row,
            column,
        )
        return None
    if not path.is_file():
        found.add(f"there is no file '{value}' under {root}.", "mend the path or put the file there.", row, column)
        return None
    return path


def _number(value: str | None, row: int, found: _Collector) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = float("nan")
    if not (np.isfinite(number) and 0.01 <= number <= 100):
        found.add(
            f"'{value}' is no scale in µm/px.", "state micrometres per pixel at level 0, such as 0.25.", row, "mpp"
        )
        return None
    return number


def _check_label(label: str | None, row: int, config: Tile, found: _Collector) -> None:
    classes = config.labels.classes
    if config.labels.source == "slide" and label is None:
        found.add(
            "it is empty, and params take labels from here (tile.labels.source: slide).", "fill it in.", row, "label"
        )
    if label is not None and label not in classes:
        near = difflib.get_close_matches(label, classes, 1)
        hint = f"did you mean '{near[0]}'? Else add" if near else "add"
        found.add(f"unknown label '{label}'.", f"{hint} it to tile.labels.classes in params.yaml.", row, "label")


def _check_sources(values: dict, row: int, config: Tile, found: _Collector) -> None:
    needs = {"annotations": "polygons" in (config.labels.source, config.masks.source)}
    raster = "raster" in (config.labels.source, config.masks.source)
    if needs["annotations"] and values.get("annotations") is None:
        found.add(
            "it is empty, and params take labels or masks from polygons.", "name its GeoJSON.", row, "annotations"
        )
    if raster and values.get("mask") is None and values.get("instances") is None:
        found.add(
            "no 'mask' or 'instances' raster, and params take labels or masks from rasters.", "name one.", row, "mask"
        )


def _check_quoted(columns: Iterable[str], config: Tile, found: _Collector) -> None:
    for name in sorted({*config.quoted} - {*_CAPTION_FIELDS} - ({*columns} - {*_NOT_QUOTED})):
        remedy = "ids don't belong in captions." if name in _NOT_QUOTED else "add the column, or mend tile.caption."
        found.add(f"tile.caption quotes {{{name}}}, which no tile has.", remedy, 1, name)


def _check_ids(entries: list[SlideEntry], found: _Collector) -> None:
    for column in ("slide_id", "path"):
        first: dict = {}
        for entry in entries:
            value = getattr(entry, column)
            value = value.resolve() if column == "path" else value
            if value in first:
                found.add(
                    f"'{getattr(entry, column)}' stands in row {first[value]} already.",
                    "each slide has one row and an id of its own.",
                    entry.row,
                    column,
                )
            first.setdefault(value, entry.row)


def _check_groups(entries: list[SlideEntry], patients: set[str], config: Tile, found: _Collector) -> None:
    """`patients` are those of all rows: a row that has another fault still names its patient."""
    group = config.split.group
    if group == "patient":
        stated: dict[str, tuple[str, int]] = {}
        for entry in entries:
            before = stated.setdefault(entry.patient_id, (entry.split, entry.row))
            if before[0] != entry.split:
                found.add(
                    f"patient '{entry.patient_id}' is in split '{entry.split}' here and in '{before[0]}' in row "
                    f"{before[1]}.",
                    "a patient belongs to one split: state the same for all of its slides.",
                    entry.row,
                    "split",
                )
        if len(patients) == 1:
            found.add(
                "there is one patient, who can't be split.",
                "ask for it by name: tile.split.group: slide (or region); "
                "the results then say nothing about other patients.",
                None,
                "patient_id",
            )
    elif len(patients) > 1:
        found.add(
            f"there are {len(patients)} patients, and tile.split.group is '{group}': one patient would lie in "
            "several splits.",
            "use tile.split.group: patient.",
            None,
            "patient_id",
        )


def _read_spots(config: Tile, slides: set[str]) -> tuple[pd.DataFrame | None, list[Fault]]:
    if config.labels.source != "spots":
        return None, []
    if config.spots is None:
        return None, [
            Fault(
                "params.yaml",
                "tile.labels.source is spots, and tile.spots names no table.",
                "set tile.spots to a CSV with " + ", ".join(SPOT_COLUMNS) + ".",
            )
        ]
    table, found = _read_table(Path(config.spots), SPOT_COLUMNS, ("patient_id", "cluster", "annotation"))
    if table is None:
        return None, found.faults
    for column in ("x_level0_px", "y_level0_px"):
        numbers = pd.to_numeric(table[column], errors="coerce")
        for index in np.flatnonzero(~np.isfinite(numbers)):
            found.add(f"'{table[column].iloc[index]}' is no number.", "state level-0 pixels.", int(index) + 2, column)
        table[column] = numbers
    for index in np.flatnonzero(table["spot_id"].duplicated()):
        found.add(
            f"'{table['spot_id'].iloc[index]}' stands above already.",
            "each spot has an id of its own.",
            int(index) + 2,
            "spot_id",
        )
    for index in np.flatnonzero(~table["label"].isin(config.labels.classes)):
        found.add(
            f"unknown label '{table['label'].iloc[index]}'.", "add it to tile.labels.classes.", int(index) + 2, "label"
        )
    for slide in sorted(slides - set(table["slide_id"])):
        found.add(f"no spot lies on slide '{slide}'.", "add its spots, or mend their slide_id.", None, "slide_id")
    return table, found.faults
