"""What the user asks for in so many words: the tiles whose conditions are taken, and what is changed in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
import pandas as pd

from histoloom.config import Edit, Params, Request, Where
from histoloom.data.expression import read_expression
from histoloom.data.expression_values import normalised
from histoloom.data.found import Found
from histoloom.data.genotype import parse_genotype, write_genotype
from histoloom.data.manifest import Manifest
from histoloom.data.nuclei_layout import NucleiLayout, Nucleus, multiplied, outlines, scattered, swapped
from histoloom.data.rows import shows_mask, spread
from histoloom.data.seeds import item_seed
from histoloom.data.slide_fields import parsed, written
from histoloom.data.store import TileStore
from histoloom.errors import Fault, HistoloomError, Note
from histoloom.registry import registered

NOT_TESTED = "not_tested"
AS_IS, CHANGED = "-as-is", "-changed"
"""Ends of a counterfactual's two tile ids."""
_DONOR_TILES = 200

ReadMasks = Callable[[pd.DataFrame], np.ndarray]
"""Rows to their masks (n, h, w)."""


def chosen(rows: pd.DataFrame, request: Request, where: Where, params: Params, masks: ReadMasks) -> pd.DataFrame:
    """The rows that one of a request's selections picks.

    Raises
    ------
    HistoloomError
        when there is none; where the request would take held-out conditions to augment, it says so.
    """
    keep = pd.Series(True, index=rows.index)
    for column in ("label", "slide_id", "patient_id", "split"):
        if (value := getattr(where, column)) is not None:
            keep &= rows[column] == value
    if where.gene:
        keep &= rows[params.train_encoders.rna.key].isin(_samples(rows, where.gene, request, params))
    for marker, state in where.genotype.items():
        keep &= rows["genotype"].map(lambda text, m=marker, s=state: parse_genotype(text).get(m, NOT_TESTED) == s)
    if where.cohort:
        keep &= rows["cohort"].map(lambda text: where.cohort.items() <= parsed(text).items())
    if where.contains:
        keep &= shows_mask(rows)
        keep &= _containing(rows, keep, where.contains, params.tile.masks.classes, masks)
    if not keep.any():
        split = {"augment": "train ", "evaluate": "held-out ", "predict": ""}[request.purpose]
        key = next(key for key, selection in request.selections.items() if selection is where)
        raise HistoloomError(
            f"plan.requests, '{request.name}': no {split}tile is as '{key}' states ({where.model_dump(exclude_defaults=True)}). "
            f"Held-out conditions are for purpose: evaluate alone; else mend '{key}'."
        )
    return rows[keep]


def check_requests(params: Params, manifest: Manifest, splits: dict[str, str]) -> list[Fault | Note]:
    """Faults of requests that name slides or patients: unknown ones, and those whose split the purpose excludes."""
    found = Found("params.yaml")
    for number, request in enumerate(params.plan.requests):
        for (key, where), column in product(request.selections.items(), ("patient_id", "slide_id")):
            if (value := getattr(where, column)) is None:
                continue
            place = f"plan.requests[{number}].{key}.{column}"
            named = [entry for entry in manifest.stated if getattr(entry, column) == value]
            mine = {splits[g] for entry in named for g in (entry.patient_id, entry.slide_id) if g in splits}
            if not named:
                found.fault(f"there is no {column} '{value}'.", "mend it.", column=place)
            elif mine and request.purpose == "augment" and "train" not in mine:
                problem = f"'{value}' is held out ({', '.join(sorted(mine))}), and purpose is augment."
                found.fault(problem, "name a train patient, or set purpose: evaluate.", column=place)
    return found.all


def _samples(rows: pd.DataFrame, genes: Mapping[str, str], request: Request, params: Params) -> set[str]:
    """Samples of these rows that lie in the stated quarter for every gene."""
    config = params.train_encoders.rna
    table = read_expression(config)
    if missing := sorted(set(genes) - set(table.columns)):
        raise HistoloomError(f"plan.requests, '{request.name}': {config.table} has no gene {', '.join(missing)}.")
    values = normalised(table, config.transform)
    values = values[values.index.isin(rows[config.key])]
    keep = pd.Series(True, index=values.index)
    for gene, side in genes.items():
        level = values[gene].quantile(0.75 if side == "high" else 0.25)
        keep &= values[gene] >= level if side == "high" else values[gene] <= level
    return set(values.index[keep])


def _containing(
    rows: pd.DataFrame, keep: pd.Series, least: Mapping[str, float], classes: tuple[str, ...], masks: ReadMasks
) -> pd.Series:
    """Of the rows that are kept, those whose masks show the least fraction of every class."""
    out = pd.Series(False, index=rows.index)
    for _, members in rows[keep].groupby("part"):
        found = masks(members)
        ids = {name: number for number, name in enumerate(("background", *classes))}
        enough = [(found == ids[name]).mean((1, 2)) >= fraction for name, fraction in least.items()]
        out[members.index] = np.all(enough, 0)
    return out


def changed(drawn: pd.DataFrame, request: Request, train: pd.DataFrame, params: Params) -> pd.DataFrame:
    """The drawn plan rows with a request's changes; of a counterfactual, each row as it was and changed, with one seed."""
    change, config, where = request.change, params.train_encoders.rna, f"plan.requests, '{request.name}'"
    if change.rna is not None and request.purpose == "augment" and change.rna not in set(train[config.key]):
        raise HistoloomError(
            f"{where}: the profile '{change.rna}' is not of the train split, and purpose is augment. Name a train profile, or "
            "set purpose: evaluate."
        )
    if change.rna is not None and change.rna not in read_expression(config).index:
        raise HistoloomError(f"{where}: {config.table} has no profile '{change.rna}'.")
    out = drawn.copy()
    for column in ("label", "caption", "rna", "mpp"):
        if (value := getattr(change, column)) is not None:
            out[column] = value
    if change.genotype:
        out["genotype"] = [_with_states(text, change.genotype) for text in out["genotype"]]
    for column, stated in (("cohort", change.cohort), ("number", change.number)):
        if stated:
            out[column] = [written(parsed(text) | stated) for text in out[column]]
    for name in change.leave_out:
        if (column := registered("condition", name).column) is None:
            how = f"sample.guidance can leave it out of all ({name}: 0)"
            raise HistoloomError(f"{where}: '{name}' can't be left out of single tiles; {how}.")
        out[column] = None
    if not request.counterfactual:
        return out
    both = [drawn.assign(tile_id=drawn["tile_id"] + AS_IS), out.assign(tile_id=out["tile_id"] + CHANGED)]
    return pd.concat(both).sort_index(kind="stable").reset_index(drop=True)


def _with_states(text: str | None, states: dict[str, str]) -> str:
    merged = parse_genotype(text) | states
    return write_genotype({marker: state for marker, state in merged.items() if state != NOT_TESTED})


def edited_layouts(
    arrays: dict[str, np.ndarray], plan: pd.DataFrame, store: TileStore, rows: pd.DataFrame, params: Params
) -> dict[str, np.ndarray]:
    """`mask`, `instance` and `edge` of the plan's rows, edited where their request says so."""
    edits = {r.name: r for r in params.plan.requests if r.change.mask != Edit()}
    wanted = [
        (index, edits[name].change.mask)
        for index, (name, tile_id) in enumerate(zip(plan["request"], plan["tile_id"]))
        if name in edits and not tile_id.endswith(AS_IS)
    ]
    out: dict[str, np.ndarray] = {name: arrays[name].copy() for name in ("mask", "instance", "edge") if name in arrays}
    if not wanted:
        return out
    counted = any(edit.multiply or edit.scatter for _, edit in wanted)
    if counted and "instance" not in out:
        raise HistoloomError(
            "Nuclei can be multiplied or scattered only where they are told apart: name 'instances' in slides.csv, or "
            "set tile.masks.source to stain."
        )
    donors = _donors(store, rows[(rows["split"] == "train") & rows["masked"]]) if counted else []
    for index, edit in wanted:
        instance = out["instance"][index] if "instance" in out else np.zeros_like(out["mask"][index], np.int32)
        rng = np.random.default_rng(item_seed(int(plan["seed"].iloc[index]), "mask"))
        layout = _edited(NucleiLayout(out["mask"][index], instance), edit, donors, params.tile.masks.classes, rng)
        out["mask"][index] = layout.mask
        if layout.instance is not instance:
            out["instance"][index], out["edge"][index] = layout.instance, outlines(layout.instance)
    return out


def _donors(store: TileStore, train: pd.DataFrame) -> list[Nucleus]:
    """Whole nuclei of train tiles, evenly spread over the split."""
    rows = spread(train, _DONOR_TILES)
    masks, instances = store.read(rows, "mask"), store.read(rows, "instance")
    return [n for mask, instance in zip(masks, instances) for n in NucleiLayout(mask, instance).nuclei().values()]


def _edited(
    layout: NucleiLayout, edit: Edit, donors: list[Nucleus], classes: tuple[str, ...], rng: np.random.Generator
) -> NucleiLayout:
    ids = {"background": 0} | {name: index + 1 for index, name in enumerate(classes)}
    if edit.scatter:
        layout = scattered(layout, donors, rng)
    for name, times in edit.multiply.items():
        layout = multiplied(layout, ids[name], times, [d for d in donors if d.class_id == ids[name]], rng)
    return swapped(layout, {ids[old]: ids[new] for old, new in edit.swap.items()})
