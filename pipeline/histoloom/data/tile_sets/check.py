"""Whether a set's tiles can be used: whose they are, what they are called, how they are labelled."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from histoloom.config import Tile, TileSet
from histoloom.data import ids
from histoloom.data.found import Found, add_it
from histoloom.data.lineage_match import id_problem
from histoloom.data.schema import DATASET, SPLITS
from histoloom.data.slide_fields import parsed
from histoloom.data.tile_sets.listing import NONE, shown
from histoloom.data.tile_sets.tiles import TileTable, list_set
from histoloom.errors import Fault, Note

SAME_SCALE = 0.02
"""Scales that differ by less than this fraction count as one: pictures are not resampled."""


def read_set(config: TileSet, tile: Tile) -> tuple[TileTable | None, list[Fault | Note]]:
    """A set's tiles with their leak units, as far as they can be read, and all faults and notes."""
    table, listed = list_set(config)
    if table is None:
        return None, listed
    found = Found(config.path, listed)
    _check_scale(table, tile, found)
    table = _with_groups(table, found)
    _check_ids(table, found)
    for check in (_check_labels, _check_masks, _check_words):
        check(table, tile, found)
    return table, found.all


def _check_scale(table: TileTable, tile: Tile, found: Found) -> None:
    mpp = table.rows["mpp"].to_numpy()
    if unstated := int(np.isnan(mpp).sum()):
        found.fault(f"{unstated:,} picture(s) state no scale.", "state mpp (µm/px) of the set.", column="mpp")
    if beyond := int(((mpp < 0.01) | (mpp > 100)).sum()):
        found.fault(f"{beyond:,} scale(s) lie beyond 0.01 to 100 µm/px.", "state µm/px.", column="mpp")
    finest = min(of.mpp for of in tile.at_scales(table.config))
    coarser = int((mpp > finest * (1 + SAME_SCALE)).sum())
    if coarser and not tile.upsample:
        wanted = "tile.mpp" if finest == tile.mpp else "a scale of its tiles"
        problem = f"{coarser:,} picture(s) are coarser ({np.nanmax(mpp):g} µm/px) than {wanted} ({finest:g})."
        found.fault(problem, "choose a coarser one, or allow tile.upsample.", column="mpp")


def _with_groups(table: TileTable, found: Found) -> TileTable:
    """Patients and slides as far as they are stated; else the slide is the patient, or, where that is asked for, the tile."""
    rows = table.rows.copy()
    patients, slides = rows["patient_id"] != "", rows["slide_id"] != ""
    if table.config.group_by == "tile":
        if stated := [column for column in ("patient_id", "slide_id") if (rows[column] != "").any()]:
            problem = f"group_by is tile, and it states {' and '.join(stated)}."
            found.fault(problem, "take group_by out, so that tiles stay together.")
        rows["patient_id"] = rows["slide_id"] = rows["tile_id"]
        fact = "tiles are each a group of their own: tiles of one patient may lie in several splits."
        found.note(f"{len(rows):,} {fact}")
        return replace(table, rows=rows)
    if lost := rows.loc[~patients & ~slides, "name"].tolist():
        remedy = "state patient_id or slide_id (columns, patterns or values), or ask for it by name: group_by: tile."
        found.fault(f"{len(lost):,} tile(s) state neither patient nor slide: {shown(lost)}.", remedy)
    if count := int((~patients & slides).sum()):
        distinct = rows.loc[~patients & slides, "slide_id"].nunique()
        fact = f"{count:,} tiles state no patient: each of their {distinct:,} slides counts as a patient of its own."
        found.note(fact)
    rows["patient_id"] = rows["patient_id"].where(patients, rows["slide_id"])
    rows["slide_id"] = rows["slide_id"].where(slides, rows["patient_id"])
    return replace(table, rows=rows)


def _check_ids(table: TileTable, found: Found) -> None:
    rows = table.rows
    if twice := rows.loc[rows["tile_id"].duplicated(), "tile_id"].unique().tolist():
        problem = f"{len(twice):,} id(s) are those of several tiles: {shown(twice)}."
        found.fault(problem, "give each tile a name of its own.", column="tile_id")
    if long := [name for name in rows["tile_id"] if len(name.encode()) > ids.MAX_BYTES]:
        problem = f"{len(long):,} id(s) have more than {ids.MAX_BYTES} bytes: {shown(long)}."
        found.fault(problem, "use shorter names.", column="tile_id")
    if table.config.group_by == "tile":
        return
    for column in ("patient_id", "slide_id"):
        for name in rows[column].unique():
            if name and (wrong := id_problem(name)):
                found.fault(*wrong, column=column)
    owners = rows[["slide_id", "patient_id"]].drop_duplicates()
    if shared := owners.loc[owners["slide_id"].duplicated() & (owners["slide_id"] != ""), "slide_id"].unique().tolist():
        problem = f"{len(shared):,} slide(s) are of several patients: {shown(shared)}."
        found.fault(problem, "a slide is of one patient.", column="slide_id")


def _check_labels(table: TileTable, tile: Tile, found: Found) -> None:
    classes, source = tile.labels.classes, tile.labels.source
    unknown = Counter(name for name in table.rows["split"] if name not in ("", *SPLITS))
    for name, count in unknown.items():
        found.fault(f"{count:,} tile(s) are in the unknown split '{name}'.", "use train, val or test.", column="split")
    if source == "none":
        return
    labels = Counter(table.rows["label"])
    empty = labels.pop("", 0)
    for name, count in labels.items():
        if name not in classes:
            hint = "state label_names, from 0; or add it" if name.isdigit() else add_it(name, classes)
            problem = f"unknown label '{name}' of {count:,} tile(s)."
            found.fault(problem, f"{hint} to tile.labels.classes.", column="label")
    from_masks = source == "raster" and (table.rows["mask_file"] != NONE).any()
    if not empty or from_masks or tile.labels.unlabelled == "keep":
        return
    if empty == len(table):
        remedy = "state label (folders of classes, columns, patterns or values), set tile.labels.source: none, or unlabelled: keep."
        found.fault("no tile has a label.", remedy, column="label")
    else:
        found.note(f"{empty:,} tile(s) have no label and are left out (tile.labels.unlabelled: drop).")


def _check_masks(table: TileTable, tile: Tile, found: Found) -> None:
    source, without = tile.masks.source, int((table.rows["mask_file"] == NONE).sum())
    for value, name in table.config.mask_values.items():
        if name not in tile.masks.classes:
            found.fault(f"mask_values names '{name}' ({value}), which tile.masks.classes doesn't.", "add it there.")
    if source in ("polygons", "raster") and without:
        fact = f"{without:,} of {len(table):,} tiles have no mask, "
        if tile.labels.unlabelled == "drop":
            remedy = "state masks, or set tile.labels.unlabelled: keep, so that they are kept as unknown."
            found.fault(f"{fact}and tile.masks.source is {source}.", remedy, column="mask")
        else:
            found.note(f"{fact}which counts as unknown.")
    if source == "none" and tile.labels.source != "raster" and without < len(table):
        found.note("its masks are not read: tile.masks.source is none.")
    fitted = ["tile.stain"] * (tile.stain != "none") + ["tile.masks.source: stain"] * (source == "stain")
    if fitted and table.config.group_by == "tile":
        problem = f"{' and '.join(fitted)} is fitted once a slide, and group_by: tile says that no slide is known."
        found.fault(problem, "state slides, or take it out.")


def _check_words(table: TileTable, tile: Tile, found: Found) -> None:
    fields = [parsed(text) for text in table.rows["fields"].unique()]
    for column in sorted({name for of in fields for name in of}):
        values = sorted({str(of.get(column, "")) for of in fields} - {""})
        if words := [value for value in values if ids.is_null(value)]:
            found.fault(f"{shown(words)} stands for a missing value.", "leave it empty.", column=column)
        wrong = [value for value in values if ids.is_missing(value) or not DATASET.fullmatch(value)]
        if column == "dataset" and wrong:
            remedy = "use letters, digits, '-', '_' and '.'."
            found.fault(f"{shown(wrong)} can't name a data set.", remedy, column=column)
    empty = int((table.rows["caption"] == "").sum())
    if "caption" in tile.quoted and empty:
        problem = f"{empty:,} caption(s) are empty, and tile.caption quotes them."
        found.fault(problem, "write them, or don't quote them.", column="caption")
    if tile.summarise and empty < len(table):
        problem = "it states captions, and tile.summarise reads those of slides."
        found.fault(problem, "summarise them yourself, or take it out.")
