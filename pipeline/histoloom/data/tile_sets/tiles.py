"""A set's tiles: of each where its picture lies, whose it is, and what is stated of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.config import TileSet
from histoloom.config.tile_sets import TILE_FIELDS, SetFormat
from histoloom.data.found import Found
from histoloom.data.schema import OPTIONAL_SLIDE_COLUMNS, SPLITS
from histoloom.data.slide_fields import parsed, written
from histoloom.data.tile_sets.arrays import list_arrays
from histoloom.data.tile_sets.files import files_of_set
from histoloom.data.tile_sets.folders import list_csv, list_folder
from histoloom.data.tile_sets.listing import Listing, NotListed, shown, their_column
from histoloom.data.tile_sets.parquet import list_parquet
from histoloom.data.tile_sets.webdataset import list_tars
from histoloom.errors import Fault, Note

_EXTRA = tuple(
    c
    for c in OPTIONAL_SLIDE_COLUMNS
    if c not in (*TILE_FIELDS, "annotations", "mask", "predicted", "instances", "partner")
)
_OF_FOLDERS = ("label", "split")
_SLIDE_COLUMNS = ["slide_id", "patient_id", "split", "label", "caption", "fields"]


@dataclass(frozen=True)
class SetSlide:
    """What tiles of a set that are alike in it state of their slide; a slide whose tiles differ has several.

    instances : a set has none.
    """

    slide_id: str
    patient_id: str
    label: str | None
    caption: str | None
    split: str | None
    extra: dict[str, str] = field(default_factory=dict)
    row: int | None = None
    instances: None = None


@dataclass(frozen=True)
class TileTable:
    """A set's tiles.

    files : that hold pictures or masks.
    rows : (n,) in the order of the files. `tile_id`, `patient_id`, `slide_id`, `label`, `caption`, `split` (text, empty where
        nothing is stated), `mpp` (µm/px), `x_level0_px`, `y_level0_px` (-1 where nobody knows), `fields` (JSON of the further
        columns), and the places of `Listing.places`.
    """

    config: TileSet
    form: SetFormat
    files: tuple[Path, ...]
    rows: pd.DataFrame

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def slides(self) -> tuple[SetSlide, ...]:
        """What is stated of slides, each once."""
        distinct = self.rows[_SLIDE_COLUMNS].drop_duplicates()
        return tuple(
            SetSlide(slide, patient, label or None, caption or None, split or None, _fields(fields))
            for slide, patient, split, label, caption, fields in distinct.itertuples(index=False)
        )


def _fields(text: str) -> dict[str, str]:
    return {name: str(value) for name, value in parsed(text).items()}


def list_set(config: TileSet) -> tuple[TileTable | None, list[Fault | Note]]:
    """A set's tiles, None where they can't be listed, and the faults and notes of its files and columns."""
    found = Found(config.path)
    try:
        form, files = files_of_set(config)
        listing = _listed(config, form, files, found)
        return TileTable(config, form, listing.files, _rows(config, listing, found)), found.all
    except NotListed as error:
        found.fault(error.problem, error.remedy)
    except OSError as error:
        problem = f"'{error.filename or config.path}' can't be read ({error.strerror or error})."
        found.fault(problem, "mend its rights or its disk.")
    return None, found.all


def _listed(config: TileSet, form: SetFormat, files: list[Path], found: Found) -> Listing:
    if form == "image_folder":
        return list_folder(config, found)
    if form == "csv":
        return list_csv(config, found)
    if form == "webdataset":
        return list_tars(config, files, found)
    return list_parquet(config, files) if form == "parquet" else list_arrays(config, files)


def _rows(config: TileSet, listing: Listing, found: Found) -> pd.DataFrame:
    _check_names(config, listing, found)
    rows = listing.places.copy()
    for column in TILE_FIELDS:
        if column != "path":
            rows[column] = _column(config, column, listing, found)
    rows["label"] = _named_labels(config, rows["label"], listing, found)
    given = zip(rows.pop("tile_id"), rows["name"])
    rows["tile_id"] = [f"{config.id}_{_as_id(stated or name)}" for stated, name in given]
    rows["mpp"] = _numbers(rows["mpp"], "mpp", found, np.nan if config.mpp is None else config.mpp)
    for column in ("x_level0_px", "y_level0_px"):
        rows[column] = _numbers(rows[column], column, found, -1).round().astype("int64")
    rows["fields"] = _further(config, listing, found)
    return rows


def _as_id(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name.replace("/", "."))


def _check_names(config: TileSet, listing: Listing, found: Found) -> None:
    """Names of ours that nobody knows, names of the set's that it hasn't, and columns that nobody reads."""
    known = {*TILE_FIELDS, *_EXTRA, "image", "mask", "volume"}
    for place in ("columns", "patterns", "values"):
        for ours in getattr(config, place):
            if ours not in known and not ours.startswith("meta_"):
                remedy = f"use {', '.join(sorted(known))}, or meta_*."
                found.fault(f"{place} names '{ours}', which is no column of ours.", remedy)
    have = {*listing.stated.columns}
    for ours, theirs in config.columns.items():
        if ours not in ("image", "mask", "volume", "path") and theirs not in have:
            has = f"its columns are {', '.join(sorted(have))}" if have else "it has none"
            found.fault(f"columns names '{theirs}' as {ours}, which it hasn't.", f"{has}: mend columns.")
    read = {their_column(config, ours, have) for ours in known} | {*config.columns.values()} | {"file_name"}
    if unread := sorted(name for name in have - read if not name.startswith("meta_")):
        fact = f"{len(unread)} column(s) are not read: {shown(unread)}."
        found.note(f"{fact} Name them in columns to keep them (meta_*).")


def _column(config: TileSet, ours: str, listing: Listing, found: Found) -> list[str]:
    """What is stated of each picture under one of our names; empty texts where nothing is."""
    names = listing.places["name"]
    if ours in config.values:
        return [config.values[ours]] * len(names)
    if ours in config.patterns:
        pattern = re.compile(config.patterns[ours])
        hits = [pattern.search(name) for name in names]
        if lost := [name for name, hit in zip(names, hits) if hit is None or not hit[1]]:
            problem = f"patterns.{ours} fits {len(lost):,} of {len(names):,} names not: {shown(lost)}."
            found.fault(problem, "mend it, or the names.")
        return [hit[1] if hit and hit[1] else "" for hit in hits]
    theirs = their_column(config, ours, listing.stated.columns)
    if theirs in listing.stated.columns:
        return listing.stated[theirs].tolist()
    return _of_folders(listing, ours) if ours in _OF_FOLDERS and listing.folders else [""] * len(names)


def _of_folders(listing: Listing, ours: str) -> list[str]:
    """The class that the outermost folder names; folders train, val and test above those of classes are splits."""
    firsts = {folders[0] for folders in listing.folders if folders}
    above = firsts <= {*SPLITS} and all(listing.folders)
    if ours == "split" and not above:
        return [""] * len(listing.folders)
    depth = 1 if above and ours == "label" else 0
    return [folders[depth] if len(folders) > depth else "" for folders in listing.folders]


def _named_labels(config: TileSet, labels: pd.Series, listing: Listing, found: Found) -> list[str]:
    """Labels that are numbers by their names, where names are stated."""
    names = config.label_names or listing.label_names
    if not names:
        return labels.tolist()
    named = [names[int(x)] if x not in names and x.isdigit() and int(x) < len(names) else x for x in labels]
    if wrong := sorted({label for label in named if label and label not in names}):
        problem = f"labels have {len(names)} names, and {shown(wrong)} is no number of one."
        found.fault(problem, "mend label_names or the labels.", None, "label")
    return named


def _numbers(values: Iterable[str], column: str, found: Found, missing: float) -> pd.Series:
    stated = pd.Series(list(values), dtype=object)
    numbers = pd.to_numeric(stated.where(stated != ""), errors="coerce")
    wrong = stated[(stated != "") & ~np.isfinite(numbers)]
    if len(wrong):
        found.fault(f"{len(wrong):,} value(s) are no numbers: {shown(wrong.unique())}.", "state numbers.", None, column)
    return numbers.astype(float).fillna(missing)


def _further(config: TileSet, listing: Listing, found: Found) -> list[str]:
    """JSON of the further columns of slides.csv, the same text for the same values."""
    have = listing.stated.columns
    named = {*have, *config.columns, *config.patterns, *config.values}
    own = sorted(name for name in named if name.startswith("meta_"))
    extra = [n for n in _EXTRA if {n} & {*config.values, *config.patterns} or their_column(config, n, have) in have]
    columns = {ours: _column(config, ours, listing, found) for ours in (*extra, *own)}
    if not columns:
        return [written({})] * len(listing.places)
    table = pd.DataFrame(columns)
    distinct = table.drop_duplicates()
    texts = {tuple(row): written(dict(zip(columns, row))) for row in distinct.itertuples(index=False)}
    return [texts[tuple(row)] for row in table.itertuples(index=False)]
