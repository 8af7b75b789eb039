"""The user's manifests, read and checked: every fault at once, with row, column and remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from histoloom.config import Tile
from histoloom.data import ids
from histoloom.data.csv_table import check_columns, read_csv_table
from histoloom.data.schema import OPTIONAL_SLIDE_COLUMNS, REQUIRED_SLIDE_COLUMNS
from histoloom.data.slide_entry import FILE_COLUMNS, Collector, SlideEntry, read_entry
from histoloom.data.slide_files import NoFile, Root
from histoloom.data.spots import read_spots
from histoloom.data.tile_sets.check import read_set
from histoloom.data.tile_sets.tiles import SetSlide, TileTable
from histoloom.errors import Fault, Note, lines_of, notes_among, refuse_faults
from histoloom.progress import console

PART_MARK = "."
"""Stands between a set's name and the number of a part."""
_NOT_QUOTED = (*FILE_COLUMNS, "mpp", "slide_id", "patient_id", "split")
_CAPTION_FIELDS = ("label", "composition", "caption", "measured", "cluster", "annotation")


@dataclass(frozen=True)
class Manifest:
    """The slides that are to be cut, the table of spots, where labels come from one, and the sets of tiles that are cut already."""

    slides: tuple[SlideEntry, ...]
    spots: pd.DataFrame | None
    sets: tuple[TileTable, ...] = ()

    @cached_property
    def stated(self) -> tuple[SlideEntry | SetSlide, ...]:
        """All slides of which something is stated: those to be cut, and those that tiles of sets are from."""
        return (*self.slides, *(slide for table in self.sets for slide in table.slides))


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
    """Read the manifests and list the sets as far as they go, with the list of their faults and notes."""
    if config.manifest is None:
        manifest, found = Manifest((), None), list[Fault | Note]()
    else:
        manifest, found = _check_slides(config, config.manifest)
        if config.sets and not manifest.slides:
            remedy = "state slides there, or set tile.manifest: null, so that tile.sets alone gives tiles."
            found.append(Fault(config.manifest, "it states no slide that could be used.", remedy))
    tables = []
    for stated in config.sets:
        table, of_set = read_set(stated, config)
        found += of_set
        if table is not None:
            tables.append(table)
    manifest = replace(manifest, sets=tuple(tables))
    return manifest, found + _check_together(manifest, config)


def _check_slides(config: Tile, path: str) -> tuple[Manifest, list[Fault | Note]]:
    table, faults = read_csv_table(path)
    found = Collector(path)
    found.found += faults
    if table.columns.empty:
        return Manifest((), None), found.found
    found.found += check_columns(path, table, REQUIRED_SLIDE_COLUMNS, OPTIONAL_SLIDE_COLUMNS)
    if not {*REQUIRED_SLIDE_COLUMNS} <= {*table.columns} or table.empty:
        return Manifest((), None), found.found
    _find_files(table, config, found)
    rows = zip(table.index, table.to_dict("records"))
    entries = [entry for row, values in rows if (entry := read_entry(values, row, config, found))]
    _check_quoted(table.columns, config, found)
    _check_ids(table, found)
    _check_paths(entries, found)
    if not config.sets:  # else with those of the sets
        _check_groups(entries, {*table["patient_id"]} - {""}, config, found)
    spots, of_spots = read_spots(config, [*filter(None, table["slide_id"].unique())])
    return Manifest(tuple(entries), spots), found.found + of_spots


def _find_files(table: pd.DataFrame, config: Tile, found: Collector) -> None:
    """The files that rows name, and the faults of those that name none; where none is there, one fault that names the root."""
    for column in [c for c in FILE_COLUMNS if c in table.columns]:
        root = Root(Path(getattr(config, FILE_COLUMNS[column])))
        named = table.loc[table[column] != "", column]
        problems: dict[int, NoFile] = {}
        for row, value in named.items():
            try:
                found.files[row, column] = root.find(value)
            except NoFile as error:
                problems[row] = error
        if 1 < len(named) == sum(not problem.hinted for problem in problems.values()):
            state = "holds none of them" if root.folder.is_dir() else "is no folder"
            all_missing = (
                f"none of the {len(named):,} files is there, such as '{named.iloc[0]}': {root.folder} {state}."
            )
            found.add(all_missing, f"mend tile.{FILE_COLUMNS[column]} in params.yaml, or the paths.", None, column)
            continue
        for row, problem in problems.items():
            found.add(problem.problem, problem.remedy, row, column)


def _check_quoted(columns: Iterable[str], config: Tile, found: Collector) -> None:
    for name in sorted({*config.quoted} - {*_CAPTION_FIELDS} - ({*columns} - {*_NOT_QUOTED})):
        remedy = "ids don't belong in captions." if name in _NOT_QUOTED else "add the column, or mend tile.caption."
        found.add(f"tile.caption quotes {{{name}}}, which no tile has.", remedy, 1, name)


def _check_ids(table: pd.DataFrame, found: Collector) -> None:
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


def _check_paths(entries: list[SlideEntry], found: Collector) -> None:
    first: dict[Path, int] = {}
    for entry in entries:
        row = first.setdefault(entry.path.resolve(), entry.row)
        if row != entry.row:
            remedy = "each slide has one row and an id of its own."
            found.add(f"'{entry.path}' stands in row {row} already.", remedy, entry.row, "path")


def _check_together(manifest: Manifest, config: Tile) -> list[Fault | Note]:
    """Faults of slides and sets beside each other, where there are sets."""
    found = Collector(config.stated_in)
    if not manifest.sets:
        return []
    owners: dict[str, str] = {}
    for entry in manifest.slides:
        owners[entry.slide_id] = entry.patient_id
    for table in manifest.sets:
        where, name = table.config.path, table.config.id
        mine = table.rows[["slide_id", "patient_id"]].drop_duplicates()
        for slide, patient in mine.itertuples(index=False):
            if (before := owners.setdefault(slide, patient)) != patient:
                problem = f"slide '{slide}' is of patient '{patient}' here, and of '{before}' elsewhere."
                found.found.append(Fault(where, problem, "a slide is of one patient: mend the id.", None, "slide_id"))
        fields = {name for slide in table.slides for name in slide.extra}
        for quoted in sorted({*config.quoted} - {*_CAPTION_FIELDS} - fields):
            remedy = f"state it for the set (values: {{{quoted}: ...}}), or mend tile.caption."
            found.found.append(Fault(where, f"tile.caption quotes {{{quoted}}}, which its tiles don't have.", remedy))
        if parts := [e.slide_id for e in manifest.slides if e.slide_id.rpartition(PART_MARK)[0] == name]:
            problem = f"slide '{parts[0]}' has the name of a part of the set '{name}'."
            found.found.append(Fault(where, problem, "give the set another name."))
    of_sets = {slide.patient_id for table in manifest.sets if table.config.group_by != "tile" for slide in table.slides}
    forms = ids.near_duplicates([*(entry.patient_id for entry in manifest.slides), *sorted(of_sets)])
    for name, other in ((name, other) for name, other in forms.items() if name in of_sets):
        problem = f"'{name}' and '{other}' differ by case, blanks, dashes, zeros or Unicode form alone."
        found.add(problem, "write both alike if they are one; else rename one.", None, "patient_id")
    _check_groups(manifest.stated, {entry.patient_id for entry in manifest.stated}, config, found)
    return found.found


def _check_groups(entries: Sequence[SlideEntry | SetSlide], patients: set[str], config: Tile, found: Collector) -> None:
    """`patients` are those of all rows: a row that has another fault still names its patient."""
    group = config.split.group
    if group == "patient":
        stated: dict[str, tuple[str | None, int | None]] = {}
        for entry in entries:
            before = stated.setdefault(entry.patient_id, (entry.split, entry.row))
            if before[0] != entry.split:
                elsewhere = "elsewhere" if before[1] is None else f"in row {before[1]}"
                found.add(
                    f"patient '{entry.patient_id}' is in split '{entry.split}' here and in '{before[0]}' {elsewhere}.",
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
