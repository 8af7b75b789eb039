"""The user's manifests, read and checked: every fault at once, with row, column and remedy."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from histoloom.config import Tile
from histoloom.data import ids
from histoloom.data.ancestry import is_code
from histoloom.data.csv_table import as_number, check_columns, read_csv_table
from histoloom.data.schema import DATASET, OPTIONAL_SLIDE_COLUMNS, REQUIRED_SLIDE_COLUMNS, SPLITS
from histoloom.data.slide_files import NoFile, Root
from histoloom.data.spots import read_spots
from histoloom.errors import Fault, Note, lines_of, notes_among, refuse_faults
from histoloom.progress import console

_FILE_COLUMNS = {
    "path": "slides_root",
    "mask": "slides_root",
    "instances": "slides_root",
    "annotations": "annotations_root",
}
_NOT_QUOTED = (*_FILE_COLUMNS, "mpp", "slide_id", "patient_id", "split")
_LEAVE_EMPTY = "leave it empty, or use other words if it means something."
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
    """The faults and notes of the manifest, and the files that it names, by row and column."""

    def __init__(self, where: str):
        self.where = where
        self.found: list[Fault | Note] = []
        self.files: dict[tuple[int, str], Path] = {}

    def add(self, problem: str, remedy: str, row: int | None = None, column: str | None = None) -> None:
        self.found.append(Fault(self.where, problem, remedy, row, column))


def read_manifest(config: Tile) -> Manifest:
    """Read slides.csv and the spot table that params name, and print the notes.

    Raises
    ------
    ManifestFaults
        with every fault found. Whether a slide's file can be read is not asked here: `tile` quarantines
        those that can't, and `validate` reports them.
    """
    manifest, found = check_manifest(config)
    for line in lines_of(notes_among(found)):
        console.print(f"note: {line}", markup=False)
    refuse_faults(found)
    return manifest


def check_manifest(config: Tile) -> tuple[Manifest, list[Fault | Note]]:
    """Read the manifests as far as they go, with the list of their faults and notes."""
    table, faults = read_csv_table(config.manifest)
    if table.columns.empty:
        return Manifest((), None), [*faults]
    found = _Collector(config.manifest)
    found.found += faults
    found.found += check_columns(config.manifest, table, REQUIRED_SLIDE_COLUMNS, OPTIONAL_SLIDE_COLUMNS)
    if not {*REQUIRED_SLIDE_COLUMNS} <= {*table.columns} or table.empty:
        return Manifest((), None), found.found
    _find_files(table, config, found)
    rows = zip(table.index, table.to_dict("records"))
    entries = [entry for row, values in rows if (entry := _entry(values, row, config, found))]
    _check_quoted(table.columns, config, found)
    _check_ids(table, found)
    _check_paths(entries, found)
    _check_groups(entries, {*table["patient_id"]} - {""}, config, found)
    spots, of_spots = read_spots(config, [*filter(None, table["slide_id"].unique())])
    return Manifest(tuple(entries), spots), found.found + of_spots


def _find_files(table: pd.DataFrame, config: Tile, found: _Collector) -> None:
    """The files that rows name, and the faults of those that name none; where none is there, one fault that names the root."""
    for column in [c for c in _FILE_COLUMNS if c in table.columns]:
        root = Root(Path(getattr(config, _FILE_COLUMNS[column])))
        named = table.loc[table[column] != "", column]
        problems: dict[int, NoFile] = {}
        for row, value in named.items():
            try:
                found.files[row, column] = root.find(value)
            except NoFile as error:
                problems[row] = error
        if 1 < len(named) == sum(not error.hinted for error in problems.values()):
            state = "holds none of them" if root.folder.is_dir() else "is no folder"
            problem = f"none of the {len(named):,} files is there, such as '{named.iloc[0]}': {root.folder} {state}."
            found.add(problem, f"mend tile.{_FILE_COLUMNS[column]} in params.yaml, or the paths.", None, column)
            continue
        for row, missing in problems.items():
            found.add(missing.problem, missing.remedy, row, column)


def _entry(row: dict[str, str], number: int, config: Tile, found: _Collector) -> SlideEntry | None:
    values = {k: v or None for k, v in row.items()}
    whole = True
    for column in REQUIRED_SLIDE_COLUMNS:
        if values.get(column) is None:
            found.add("it is empty.", "fill it in.", number, column)
            whole = False
    if (slide_id := values["slide_id"]) and (problem := _id_problem(slide_id) or ids.folder_problem(slide_id)):
        found.add(*problem, number, "slide_id")
        whole = False
    if values["patient_id"] and (problem := _id_problem(values["patient_id"])):
        found.add(*problem, number, "patient_id")
    paths = {column: found.files.get((number, column)) for column in _FILE_COLUMNS}
    mpp = _scale(values.get("mpp"), number, found)
    values["split"] = _split(values.get("split"), number, found)
    _check_label(values.get("label"), number, config, found)
    _check_sources(values, number, config, found)
    _check_dataset(values.get("dataset"), number, found)
    known = ("slide_id", "patient_id", "label", "caption", "split")
    extra = {k: v or "" for k, v in values.items() if k not in (*known, *_FILE_COLUMNS, "mpp")}
    words = {column: value for column, value in extra.items() if column != "dataset"}
    _check_words(words | {"caption": values.get("caption") or ""}, number, found)
    path, patient_id = paths.pop("path"), values["patient_id"]
    if not whole or path is None or slide_id is None or patient_id is None:
        return None
    if "{caption}" in config.caption and values.get("caption") is None:
        found.add("it is empty, and tile.caption quotes it.", "write a caption, or don't quote it.", number, "caption")
    return SlideEntry(
        slide_id,
        path,
        patient_id,
        number,
        mpp=mpp,
        label=values.get("label"),
        caption=values.get("caption"),
        split=values.get("split"),
        annotations=paths["annotations"],
        mask=paths["mask"],
        instances=paths["instances"],
        extra=extra,
    )


def _id_problem(text: str) -> tuple[str, str] | None:
    if is_code(text):
        return (
            f"'{text}' has the form of the codes that stand for ids outside.",
            "put something before it, such as 'id-'.",
        )
    return ids.damage(text)


def _scale(value: str | None, row: int, found: _Collector) -> float | None:
    if value is None:
        return None
    remedy = "state micrometres per pixel at level 0, such as 0.25."
    try:
        number = as_number(value)
    except ValueError as error:
        problem = str(error)
        if re.fullmatch(r"[\d.,]+ ?([^\d.,\s].*)|[xX×] ?\d+", value):
            problem = f"'{value}' is more than a number: a scale is stated without its unit."
        found.add(problem, remedy, row, "mpp")
        return None
    if 0.01 <= number <= 100:
        return number
    other = {"nanometres": number / 1000, "millimetres": number * 1000}
    meant = [f" In {unit} it would be {scale:g} µm/px." for unit, scale in other.items() if 0.05 <= scale <= 10]
    found.add(f"'{value}' is no scale in µm/px.{''.join(meant[:1])}", remedy, row, "mpp")
    return None


def _split(split: str | None, row: int, found: _Collector) -> str | None:
    if split in (None, *SPLITS):
        return split
    found.add(f"unknown split '{split}'.", "use train, val or test, or leave it empty.", row, "split")
    return None


def _check_words(values: dict[str, str], row: int, found: _Collector) -> None:
    for column, value in values.items():
        if ids.is_null(value):
            found.add(f"'{value}' stands for a missing value.", _LEAVE_EMPTY, row, column)


def _check_label(label: str | None, row: int, config: Tile, found: _Collector) -> None:
    classes = config.labels.classes
    if config.labels.source == "slide" and label is None:
        found.add(
            "it is empty, and params take labels from here (tile.labels.source: slide).", "fill it in.", row, "label"
        )
    if label is not None and label not in classes and ids.is_null(label):
        _check_words({"label": label}, row, found)
    elif label is not None and label not in classes:
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


def _check_dataset(name: str | None, row: int, found: _Collector) -> None:
    if name and ids.is_missing(name):
        found.add(
            f"'{name}' says nothing of a data set.",
            "name the set, write own if it is of none, or leave it empty.",
            row,
            "dataset",
        )
    elif name and not DATASET.fullmatch(name):
        remedy = "use letters, digits, '-', '_' and '.', as in camelyon16."
        found.add(f"'{name}' can't name a data set.", remedy, row, "dataset")


def _check_quoted(columns: Iterable[str], config: Tile, found: _Collector) -> None:
    for name in sorted({*config.quoted} - {*_CAPTION_FIELDS} - ({*columns} - {*_NOT_QUOTED})):
        remedy = "ids don't belong in captions." if name in _NOT_QUOTED else "add the column, or mend tile.caption."
        found.add(f"tile.caption quotes {{{name}}}, which no tile has.", remedy, 1, name)


def _check_ids(table: pd.DataFrame, found: _Collector) -> None:
    first: dict[str, int] = {}
    for row, value in table["slide_id"].items():
        if value and value in first:
            remedy = "each slide has one row and an id of its own."
            found.add(f"'{value}' stands in row {first[value]} already.", remedy, row, "slide_id")
        first.setdefault(value, row)
    for column in ("slide_id", "patient_id"):
        forms = ids.near_duplicates(filter(None, table[column]))
        for row, value in table.loc[table[column].isin(forms), column].items():
            found.add(
                f"'{value}' and '{forms[value]}' differ by case, blanks, dashes, zeros or Unicode form alone.",
                "write both alike if they are one; else rename one.",
                row,
                column,
            )
    dates = [value for value in table["patient_id"].unique() if ids.looks_like_date(value)]
    if dates:
        fact = f"{len(dates):,} patient(s) have a date as their id, such as '{dates[0]}'. Look whether a spreadsheet made it of another."
        found.found.append(Note(found.where, fact, None, "patient_id"))


def _check_paths(entries: list[SlideEntry], found: _Collector) -> None:
    first: dict[Path, int] = {}
    for entry in entries:
        row = first.setdefault(entry.path.resolve(), entry.row)
        if row != entry.row:
            remedy = "each slide has one row and an id of its own."
            found.add(f"'{entry.path}' stands in row {row} already.", remedy, entry.row, "path")


def _check_groups(entries: list[SlideEntry], patients: set[str], config: Tile, found: _Collector) -> None:
    """`patients` are those of all rows: a row that has another fault still names its patient."""
    group = config.split.group
    if group == "patient":
        stated: dict[str, tuple[str | None, int]] = {}
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
