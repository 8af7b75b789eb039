"""The table of spots that label tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from histoloom.config import Tile
from histoloom.data.csv_table import as_number, check_columns, read_csv_table
from histoloom.data.ids import canonical, is_null
from histoloom.data.schema import SPOT_COLUMNS
from histoloom.errors import Fault, Note

_PLACE = ("x_level0_px", "y_level0_px")
_WORDS = ("cluster", "annotation")


def read_spots(config: Tile, slides: Sequence[str]) -> tuple[pd.DataFrame | None, list[Fault | Note]]:
    """Read the spots that `tile.spots` names, as far as they go, with the list of faults and notes.

    Parameters
    ----------
    slides : the ids of the manifest's slides. Spots of others are counted, and never asked for.
    """
    if config.labels.source != "spots":
        return None, []
    if config.spots is None:
        remedy = "set tile.spots to a CSV with " + ", ".join(SPOT_COLUMNS) + "."
        return None, [Fault("params.yaml", "tile.labels.source is spots, and tile.spots names no table.", remedy)]
    where = config.spots
    table, faults = read_csv_table(where)
    found: list[Fault | Note] = [*faults]
    if table.columns.empty:
        return None, found
    found += check_columns(where, table, SPOT_COLUMNS, ("patient_id", "cluster", "annotation"))
    if not {*SPOT_COLUMNS} <= {*table.columns} or table.empty:
        return None, found
    found += _faults_of_rows(where, table, config.labels.classes)
    found += _faults_of_slides(where, table, slides)
    for column in _PLACE:
        table[column] = [_place(value) for value in table[column]]
    return table, found


def _faults_of_rows(where: str, table: pd.DataFrame, classes: Sequence[str]) -> list[Fault]:
    faults: list[Fault] = []
    first: dict[str, int] = {}
    for row, spot in zip(table.index, table.to_dict("records")):
        for column in SPOT_COLUMNS:
            if not spot[column]:
                remedy = "fill it in, or remove the spot."
                faults.append(Fault(where, "it is empty.", remedy, row, column))
        faults += [fault for column in _PLACE if spot[column] for fault in _fault_of_place(where, spot, row, column)]
        for column in [name for name in _WORDS if is_null(spot.get(name, ""))]:
            remedy = "leave it empty, or use other words if it means something."
            faults.append(Fault(where, f"'{spot[column]}' stands for a missing value.", remedy, row, column))
        if before := first.get(spot["spot_id"]):
            problem = f"'{spot['spot_id']}' stands in row {before} already."
            faults.append(Fault(where, problem, "each spot has an id of its own.", row, "spot_id"))
        elif spot["spot_id"]:
            first[spot["spot_id"]] = row
        if spot["label"] and spot["label"] not in classes:
            problem = f"unknown label '{spot['label']}'."
            faults.append(Fault(where, problem, "add it to tile.labels.classes.", row, "label"))
    return faults


def _fault_of_place(where: str, spot: dict[str, str], row: int, column: str) -> list[Fault]:
    try:
        if math.isfinite(as_number(spot[column])):
            return []
        problem = f"'{spot[column]}' is no number."
    except ValueError as error:
        problem = str(error)
    return [Fault(where, problem, "state level-0 pixels.", row, column)]


def _place(text: str) -> float:
    """A coordinate; NaN where there is none, which is a fault already."""
    try:
        return as_number(text)
    except ValueError:
        return math.nan


def _faults_of_slides(where: str, table: pd.DataFrame, slides: Sequence[str]) -> list[Fault | Note]:
    found: list[Fault | Note] = []
    named = {canonical(slide): slide for slide in slides}
    strangers = table.loc[~table["slide_id"].isin([*slides, ""]), "slide_id"]
    near = {name for name in strangers.unique() if canonical(name) in named}
    for row, name in strangers[strangers.isin(near)].items():
        problem = f"'{name}' is no slide, and there is '{named[canonical(name)]}'."
        found.append(Fault(where, problem, "write both tables' ids alike.", row, "slide_id"))
    others = strangers[~strangers.isin(near)]
    if len(others):
        fact = f"{len(others):,} spot(s) of {others.nunique():,} slide(s) that the manifest lacks, such as '{others.iloc[0]}', are not used."
        found.append(Note(where, fact, None, "slide_id"))
    for slide in sorted({*slides} - {*table["slide_id"]} - {named[canonical(name)] for name in near}):
        found.append(
            Fault(
                where, f"no spot lies on slide '{slide}'.", "add its spots, or mend their slide_id.", None, "slide_id"
            )
        )
    return found
