"""The table of spots that label tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from histoloom.config import Tile
from histoloom.data.csv_table import as_number, check_columns, read_csv_table
from histoloom.data.found import Found
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
    table, faults = read_csv_table(config.spots)
    found = Found(config.spots, [*faults])
    if not table.columns.empty:
        found.all += check_columns(found.where, table, SPOT_COLUMNS, ("patient_id", "cluster", "annotation"))
    if not {*SPOT_COLUMNS} <= {*table.columns} or table.empty:
        return None, found.all
    first: dict[str, int] = {}
    for row, spot in zip(table.index, table.to_dict("records")):
        _check_row(row, spot, first, config.labels.classes, found)
    _check_slides(table, slides, found)
    for column in _PLACE:
        table[column] = [_place(value)[0] for value in table[column]]
    return table, found.all


def _check_row(row: int, spot: dict[str, str], first: dict[str, int], classes: Sequence[str], found: Found) -> None:
    """Faults of a spot; `first` holds the row of each id before."""
    for column in (name for name in SPOT_COLUMNS if not spot[name]):
        found.fault("it is empty.", "fill it in, or remove the spot.", row, column)
    for column in (name for name in _PLACE if spot[name]):
        if problem := _place(spot[column])[1]:
            found.fault(problem, "state level-0 pixels.", row, column)
    for column in (name for name in _WORDS if is_null(spot.get(name, ""))):
        remedy = "leave it empty, or use other words if it means something."
        found.fault(f"'{spot[column]}' stands for a missing value.", remedy, row, column)
    spot_id, label = spot["spot_id"], spot["label"]
    if spot_id and (before := first.setdefault(spot_id, row)) != row:
        found.fault(f"'{spot_id}' stands in row {before} already.", "each spot has an id of its own.", row, "spot_id")
    if label and label not in classes:
        found.fault(f"unknown label '{label}'.", "add it to tile.labels.classes.", row, "label")


def _place(text: str) -> tuple[float, str]:
    """A coordinate, NaN where the text states none, and why it is none."""
    try:
        value = as_number(text)
        return value, "" if math.isfinite(value) else f"'{text}' is no number."
    except ValueError as error:
        return math.nan, str(error)


def _check_slides(table: pd.DataFrame, slides: Sequence[str], found: Found) -> None:
    named = {canonical(slide): slide for slide in slides}
    strangers = table.loc[~table["slide_id"].isin([*slides, ""]), "slide_id"]
    near = {name for name in strangers.unique() if canonical(name) in named}
    for row, name in strangers[strangers.isin(near)].items():
        problem = f"'{name}' is no slide, and there is '{named[canonical(name)]}'."
        found.fault(problem, "write both tables' ids alike.", row, "slide_id")
    others = strangers[~strangers.isin(near)]
    if len(others):
        fact = f"{len(others):,} spot(s) of {others.nunique():,} slide(s) that the manifest lacks, such as '{others.iloc[0]}', are not used."
        found.note(fact, "slide_id")
    for slide in sorted({*slides} - {*table["slide_id"]} - {named[canonical(name)] for name in near}):
        remedy = "add its spots, or mend their slide_id."
        found.fault(f"no spot lies on slide '{slide}'.", remedy, column="slide_id")
