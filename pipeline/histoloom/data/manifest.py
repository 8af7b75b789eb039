"""The user's manifests, read and checked: every fault at once, with row, column and remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from histoloom.config import Tile
from histoloom.data import ids
from histoloom.data.csv_table import check_columns, read_csv_table
from histoloom.data.dicom import read_dicom_header
from histoloom.data.few_groups import few_groups, more_groups
from histoloom.data.found import Found
from histoloom.data.schema import OPTIONAL_SLIDE_COLUMNS, REQUIRED_SLIDE_COLUMNS
from histoloom.data.slide_entry import FILE_COLUMNS, SlideEntry, read_entry
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
    found = Found(path, [*faults])
    if not table.columns.empty:
        found.all += check_columns(path, table, REQUIRED_SLIDE_COLUMNS, OPTIONAL_SLIDE_COLUMNS)
    if not {*REQUIRED_SLIDE_COLUMNS} <= {*table.columns} or table.empty:
        return Manifest((), None), found.all
    files = _find_files(table, config, found)
    rows = zip(table.index, table.to_dict("records"))
    entries = [entry for row, values in rows if (entry := read_entry(values, row, files[row], config, found))]
    _check_quoted(table.columns, config, found)
    _check_ids(table, found)
    _check_once([(entry.row, str(entry.path)) for entry in entries], "path", found, lambda path: Path(path).resolve())
    _check_series(entries, found)
    if not config.sets:  # else with those of the sets
        _check_groups(entries, {*table["patient_id"]} - {""}, config, found)
    spots, of_spots = read_spots(config, [*filter(None, table["slide_id"].unique())])
    return Manifest(tuple(entries), spots), found.all + of_spots


def _find_files(table: pd.DataFrame, config: Tile, found: Found) -> dict[int, dict[str, Path]]:
    """Row to the files that it names, by column; a fault of each that is missing, or of the root, where all are."""
    files: dict[int, dict[str, Path]] = {row: {} for row in table.index}
    for column in [c for c in FILE_COLUMNS if c in table.columns]:
        root = Root(getattr(config, FILE_COLUMNS[column]), Path(config.remote_cache))
        named = table.loc[table[column] != "", column]
        root.prepare(named)
        problems: dict[int, NoFile] = {}
        for row, value in named.items():
            try:
                files[row][column] = root.find(value)
            except NoFile as error:
                problems[row] = error
        if 1 < len(named) == sum(not problem.hinted for problem in problems.values()):
            state = "holds none of them" if root.address or root.folder.is_dir() else "is no folder"
            place = root.address or root.folder
            problem = f"none of the {len(named):,} files is there, such as '{named.iloc[0]}': {place} {state}."
            remedy = f"mend tile.{FILE_COLUMNS[column]} in params.yaml, or the paths."
            found.fault(problem, remedy, column=column)
            continue
        for row, missing in problems.items():
            found.fault(missing.problem, missing.remedy, row, column)
    return files


def _check_quoted(columns: Iterable[str], config: Tile, found: Found) -> None:
    for name in sorted({*config.quoted} - {*_CAPTION_FIELDS} - ({*columns} - {*_NOT_QUOTED})):
        remedy = "ids don't belong in captions." if name in _NOT_QUOTED else "add the column, or mend tile.caption."
        found.fault(f"tile.caption quotes {{{name}}}, which no tile has.", remedy, 1, name)


def _check_ids(table: pd.DataFrame, found: Found) -> None:
    _check_once(table["slide_id"].items(), "slide_id", found)
    for column in ("slide_id", "patient_id"):
        forms = ids.near_duplicates(filter(None, table[column]))
        for row, value in table.loc[table[column].isin(forms), column].items():
            found.fault(*_alike(value, forms[value]), row, column)
    if dates := [value for value in table["patient_id"].unique() if ids.looks_like_date(value)]:
        fact = f"{len(dates):,} patient(s) have a date as their id, such as '{dates[0]}'."
        found.note(f"{fact} Look whether a spreadsheet made it of another.", "patient_id")


def _alike(name: str, other: str) -> tuple[str, str]:
    problem = f"'{name}' and '{other}' differ by case, blanks, dashes, zeros or Unicode form alone."
    return problem, "write both alike if they are one; else rename one."


def _check_once(values: Iterable[tuple[int, str]], column: str, found: Found, same: Callable = str) -> None:
    """Faults of values that stand in an earlier row already; `same` gives what two of them have in common."""
    first: dict = {}
    for row, value in values:
        if value and (before := first.setdefault(same(value), row)) != row:
            problem = f"'{value}' stands in row {before} already."
            found.fault(problem, "each slide has one row and an id of its own.", row, column)


def _check_series(entries: Iterable[SlideEntry], found: Found) -> None:
    """Faults of rows that name another file of a DICOM series, or a copy of it, that an earlier row names."""
    first: dict[str, SlideEntry] = {}
    for entry in entries:
        header = read_dicom_header(entry.path)
        before = first.setdefault(header.series, entry) if header else entry
        if before.path.resolve() != entry.path.resolve():
            problem = f"'{entry.path.name}' is of the DICOM series that row {before.row} names by '{before.path.name}': the same slide."
            found.fault(problem, "remove one of the rows: OpenSlide finds the files of a series.", entry.row, "path")


def _check_together(manifest: Manifest, config: Tile) -> list[Fault | Note]:
    """Faults of slides and sets beside each other, where there are sets."""
    found = Found(config.stated_in)
    if not manifest.sets:
        return []
    owners = {entry.slide_id: entry.patient_id for entry in manifest.slides}
    for table in manifest.sets:
        where, name = table.config.path, table.config.id
        mine = table.rows[["slide_id", "patient_id"]].drop_duplicates()
        for slide, patient in mine.itertuples(index=False):
            if (before := owners.setdefault(slide, patient)) != patient:
                problem = f"slide '{slide}' is of patient '{patient}' here, and of '{before}' elsewhere."
                found.all.append(Fault(where, problem, "a slide is of one patient: mend the id.", None, "slide_id"))
        fields = {name for slide in table.slides for name in slide.extra}
        for quoted in sorted({*config.quoted} - {*_CAPTION_FIELDS} - fields):
            remedy = f"state it for the set (values: {{{quoted}: ...}}), or mend tile.caption."
            found.all.append(Fault(where, f"tile.caption quotes {{{quoted}}}, which its tiles don't have.", remedy))
        if parts := [e.slide_id for e in manifest.slides if e.slide_id.rpartition(PART_MARK)[0] == name]:
            problem = f"slide '{parts[0]}' has the name of a part of the set '{name}'."
            found.all.append(Fault(where, problem, "give the set another name."))
    of_sets = {slide.patient_id for table in manifest.sets if table.config.group_by != "tile" for slide in table.slides}
    forms = ids.near_duplicates([*(entry.patient_id for entry in manifest.slides), *sorted(of_sets)])
    for name, other in ((name, other) for name, other in forms.items() if name in of_sets):
        found.fault(*_alike(name, other), column="patient_id")
    _check_groups(manifest.stated, {entry.patient_id for entry in manifest.stated} - {""}, config, found)
    return found.all


def _check_groups(entries: Sequence[SlideEntry | SetSlide], patients: set[str], config: Tile, found: Found) -> None:
    """`patients` are those of all rows: a row that has another fault still names its patient."""
    group = config.split.group
    if group == "patient":
        stated: dict[str, tuple[str | None, int | None]] = {}
        for entry in entries:
            before = stated.setdefault(entry.patient_id, (entry.split, entry.row))
            if before[0] != entry.split:
                elsewhere = f"'{before[0]}' " + ("elsewhere" if before[1] is None else f"in row {before[1]}")
                problem = f"patient '{entry.patient_id}' is in split '{entry.split}' here and in {elsewhere}."
                remedy = "a patient belongs to one split: state the same for all of its slides."
                found.fault(problem, remedy, entry.row, "split")
        if len(patients) == 1:
            few = few_groups(patients, config.split)
            problem = f"there is one patient, who can't be split{f': {few}' if few else ''}."
            slides = [entry.slide_id for entry in entries]
            remedy = more_groups(slides, patients, config.split, of_sets=bool(config.sets))
            found.fault(problem, remedy, column="patient_id")
    elif len(patients) > 1:
        problem = f"there are {len(patients)} patients, and tile.split.group is '{group}': one patient would lie in several splits."
        found.fault(problem, "use tile.split.group: patient.", column="patient_id")
