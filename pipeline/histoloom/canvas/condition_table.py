"""The conditions that a slide states, for its whole or point by point in a table, and the grid that they make."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import pandas as pd
import torch

from histoloom.canvas.condition_grid import ConditionGrid
from histoloom.canvas.sources import InputSources
from histoloom.conditions.batch import Conditions, cat
from histoloom.conditions.cohort import CohortCondition
from histoloom.conditions.encode import ConditionSet, batch, null
from histoloom.conditions.rna import RnaCondition
from histoloom.config import Params, WovenSlide
from histoloom.data.csv_table import as_number, number_fault, read_csv_table
from histoloom.data.found import Found
from histoloom.data.slide_fields import parsed, written
from histoloom.data.tables import with_conditions
from histoloom.errors import Fault, refuse_faults

_IN_TABLES = ("label", "caption", "rna", "genotype")
_FIELDS = ("cohort", "number")
"""Conditions of several columns each: in a table, `cohort.site` is the column `site` of cohort."""
_COLUMNS = (*_IN_TABLES, *_FIELDS)


class PointConditions(TypedDict):
    """What a point of the grid states; None for what it leaves open."""

    label: str | None
    caption: str | None
    rna: str | None
    genotype: str | None
    cohort: str | None
    number: str | None


@dataclass(frozen=True)
class StatedConditions:
    """A slide's conditions other than maps.

    source_groups : split groups of the tiles whose conditions or profiles they are.
    points : what each point of the grid states, row by row.
    """

    grid: ConditionGrid
    source_groups: frozenset[str]
    points: list[list[PointConditions]]


def state_conditions(slide: WovenSlide, sources: InputSources) -> StatedConditions:
    """A slide's conditions other than maps, from its table and the tiles that it names.

    Raises
    ------
    ManifestFaults
        for a tile or an expression profile that isn't there.
    """
    params = sources.params
    table, tiles = read_condition_table(slide, params), pd.DataFrame(index=pd.Index([], name="tile_id"))
    if sources.tiles is not None:
        rows = with_conditions(sources.tiles.rows(), params).drop_duplicates("tile_id")
        tiles = rows.set_index("tile_id", drop=False)
    refuse_faults(_unknown(slide, table, tiles, sources.conditions))
    table, groups = _filled_from_tiles(table, tiles)
    if "rna" in sources.conditions.names and table["rna"].notna().any():
        groups |= set(tiles.loc[tiles["rna"].isin(table["rna"].dropna()), "split_group"])
    rows = table.assign(mpp=params.tile.mpp).replace({np.nan: None}).astype({"mpp": float})
    shape = int(table["row"].max()) + 1, int(table["col"].max()) + 1
    index = np.full(shape, -1)
    index[table["row"].astype(int), table["col"].astype(int)] = np.arange(len(table))
    down, along = slide.height_px / sources.factor / shape[0], slide.width_px / sources.factor / shape[1]
    grid = ConditionGrid(_encoded(rows, tiles, sources), torch.from_numpy(index), (down, along))
    stated = rows[list(_COLUMNS)].to_dict("records")
    return StatedConditions(grid, frozenset(groups), [[stated[i] for i in row] for row in index])


def _filled_from_tiles(table: pd.DataFrame, tiles: pd.DataFrame) -> tuple[pd.DataFrame, set[str]]:
    """The table with what its tiles state where it leaves a condition open, and those tiles' groups."""
    if "tile_id" not in table:
        return table, set()
    named = tiles.reindex(table["tile_id"].to_numpy(object))
    taken = {
        name: table[name].where(table[name].notna(), pd.Series(named[name].to_numpy(object), table.index))
        for name in _IN_TABLES
    }
    for name in _FIELDS:
        both = zip(named[name], table[name])
        taken[name] = pd.Series([_joined(of_tile, own) for of_tile, own in both], table.index, object)
    return table.assign(**taken), set(named["split_group"].dropna())


def _joined(*texts: str | None) -> str | None:
    """JSON of cohort or number: of each column what the last of these states."""
    fields = {name: value for text in texts for name, value in parsed(text).items()}
    return written(fields) if fields else None


def _encoded(rows: pd.DataFrame, tiles: pd.DataFrame, sources: InputSources) -> Conditions:
    """The conditions of the rows, and after them the nulls of all."""
    without_maps = ConditionSet(tuple(c for c in sources.conditions.conditions if c.shape != "map"))
    arrays = without_maps.arrays(rows, _pictures(rows, tiles, sources))
    without = rows["tile_id"].isna().to_numpy() if "tile_id" in rows else np.ones(len(rows), bool)
    for of_tile in (c.name for c in without_maps.conditions if c.reads):
        arrays[of_tile][without] = 0
    specs = without_maps.specs()
    return cat([batch(arrays, specs, np.arange(len(rows))), null(arrays, specs)])


def _unknown(slide: WovenSlide, table: pd.DataFrame, tiles: pd.DataFrame, conditions: ConditionSet) -> Iterator[Fault]:
    """Tiles and profiles that are named and aren't there."""
    where = slide.condition_grid or f"params.yaml, slide '{slide.name}'"
    profiles = next((c.codes.index for c in conditions.conditions if isinstance(c, RnaCondition)), pd.Index([]))
    checked: tuple[tuple[str, Collection[str], str], ...] = (
        ("tile_id", tiles.index, "name a tile of data/tiles (histoloom preview shows them)."),
        ("rna", profiles, "name a sample of train_encoders.rna.table."),
    )
    for column, known, remedy in checked:
        named = table[column] if column in table else pd.Series(dtype=object)
        for place in np.flatnonzero(named.notna() & ~named.isin(known)).tolist():
            yield Fault(where, f"'{named.iloc[place]}' isn't there.", remedy, _line(table, place), column)
    cohorts = next((c.channels for c in conditions.conditions if isinstance(c, CohortCondition)), ())
    for place, text in enumerate(table["cohort"] if cohorts else ()):
        for name, value in parsed(text).items():
            if f"{name}={value}" not in cohorts:
                has = ", ".join(sorted(cohorts))
                problem = f"no train tile has '{name}={value}'."
                yield Fault(where, problem, f"they have {has}.", _line(table, place), f"cohort.{name}")


def _line(table: pd.DataFrame, place: int) -> int | None:
    """The line of a row as an editor counts it; None of a slide without a table."""
    return int(table["line"].iloc[place]) if "line" in table else None


def _pictures(rows: pd.DataFrame, tiles: pd.DataFrame, sources: InputSources) -> Callable[[str], np.ndarray]:
    """The tiles that rows name; zeros where a row names none."""
    store, side = sources.tiles, sources.params.tile.tile_px

    def read(name: str) -> np.ndarray:
        if store is None:
            return np.zeros((len(rows), side, side, *((3,) if name == "image" else ())), np.uint8)
        named = rows["tile_id"].notna().to_numpy() if "tile_id" in rows else np.zeros(len(rows), bool)
        found = store.read(tiles.loc[rows["tile_id"][named]] if named.any() else tiles.head(0), name)
        out = np.zeros((len(rows), *found.shape[1:]), found.dtype)
        out[named] = found
        return out

    return read


def read_condition_table(slide: WovenSlide, params: Params) -> pd.DataFrame:
    """A row a grid point: `row`, `col`, conditions, perhaps `tile_id`. What a row leaves open is as for the whole slide.

    `cohort` and `number` are JSON, as tiles have them; the file's own columns of these stay beside them.

    Raises
    ------
    ManifestFaults
        with every fault of the slide's file.
    """
    whole = {name: getattr(slide, name) for name in _IN_TABLES}
    whole |= {name: written(getattr(slide, name)) if getattr(slide, name) else None for name in _FIELDS}
    if slide.condition_grid is None:
        return pd.DataFrame([whole | {"row": 0, "col": 0}])
    table, faults = read_csv_table(slide.condition_grid)
    refuse_faults(faults)
    known = {"row", "col", "tile_id", *_IN_TABLES}
    known |= {f"{name}.{column}" for name in _FIELDS for column in getattr(params.train_encoders, name).columns}
    found, lines = Found(slide.condition_grid), table.index
    for column in (name for name in table if name not in known):
        found.fault("this column means nothing here.", f"use {sorted(known)}.", 1, column)
    for column in (name for name in ("row", "col") if name not in table):
        found.fault("the column is missing.", "add it.", 1, column)
    refuse_faults(found.all)
    table = table.reset_index(drop=True).replace({"": None})
    for column in ("row", "col"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    _check_points(table, lines, params, found)
    refuse_faults(found.all)
    filled = {n: table[n].where(table[n].notna(), whole[n]) if n in table else whole[n] for n in _IN_TABLES}
    return table.assign(**filled, **{name: _fields(table, name, whole[name]) for name in _FIELDS}, line=lines)


def _fields(table: pd.DataFrame, name: str, whole: str | None) -> pd.Series:
    """JSON of cohort or number at each row: what its own columns state, and of the others what the whole slide states."""
    column_of = {column: column.partition(".")[2] for column in table if column.startswith(f"{name}.")}
    read = as_number if name == "number" else str
    rows = table[list(column_of)].to_dict("index") if column_of else {line: {} for line in table.index}
    own = [{column_of[column]: read(value) for column, value in row.items() if value} for row in rows.values()]
    return pd.Series([_joined(whole, written(stated)) for stated in own], table.index, object)


def _check_points(table: pd.DataFrame, lines: pd.Index, params: Params, found: Found) -> None:
    """Faults of what the rows state; `lines` are theirs as an editor counts them."""
    for column in ("row", "col"):
        for line in lines[table[column].isna() | (table[column] < 0) | (table[column] % 1 != 0)]:
            found.fault("it is no whole number from 0 up.", "count rows and columns.", int(line), column)
    if "label" in table:
        wrong = ~table["label"].isin([None, *params.tile.labels.classes])
        for line, label in zip(lines[wrong], table["label"][wrong]):
            found.fault(f"unknown label '{label}'.", "use one of tile.labels.classes.", int(line), "label")
    for column in (column for column in table if column.startswith("number.")):
        for line, text in zip(lines, table[column]):
            if text and (wrong := number_fault(text)):
                found.fault(wrong, "state a number, or leave it empty.", int(line), column)
    wanted = (table["row"].max() + 1) * (table["col"].max() + 1)
    if not found.all and (table.duplicated(["row", "col"]).any() or len(table) != wanted):
        found.fault(f"{len(table)} rows are no whole grid of {wanted:.0f} points.", "state each point once.")
