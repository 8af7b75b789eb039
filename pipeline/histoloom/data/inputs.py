"""The further real tiles that a plan's rows are made of: those that they begin from, with their arrays, and those that they are to be like."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt, label, maximum

from histoloom.config import Params, Request
from histoloom.config.program import Program, Remake
from histoloom.data.rows import in_rounds
from histoloom.data.seeds import item_seed
from histoloom.data.store import TileStore, write_arrays
from histoloom.errors import HistoloomError
from histoloom.registry import registered

INPUTS, FREE, BLEND = "inputs", "free", "blend"
GROUPS = ("split_group", "input_group", "like_group")
"""Columns of a plan: the split groups that a row is made of."""
CONDITION_COLUMNS = ("label", "caption", "rna", "genotype", "cohort", "number", "mpp")


def with_program(
    drawn: pd.DataFrame, request: Request, begin_from: pd.DataFrame | None, rows: pd.DataFrame, seed: int
) -> pd.DataFrame:
    """Plan rows with a request's program: each of its samples a row, where each is a tile; and the tile that each row begins from.

    Parameters
    ----------
    begin_from : the rows that `start.where` picks; None where it picks none. rows : of all real tiles.
    """
    out = drawn.assign(program=request.text, input_ref=None, input_group=None, input_conditions=None)
    if request.reads_tile:
        out["input_ref"] = out["condition_ref"]
        if begin_from is not None:
            order = np.random.default_rng(item_seed(seed, f"plan/{request.name}-/start"))
            out["input_ref"] = in_rounds(begin_from, len(out), order)["tile_id"].to_numpy()
        tiles = rows.set_index("tile_id").loc[out["input_ref"]]
        out["input_group"] = tiles["split_group"].to_numpy()
        if request.start.inverted:
            stated = tiles[list(CONDITION_COLUMNS)].astype(object)
            out["input_conditions"] = [json.dumps(row) for row in stated.where(stated.notna(), None).to_dict("records")]
    if request.reduce.name != "each" or request.samples == 1:
        return out
    of_each = [out.assign(tile_id=out["tile_id"] + f"-s{number}") for number in range(request.samples)]
    joined = pd.concat(of_each).sort_index(kind="stable").reset_index(drop=True)
    return joined.assign(seed=np.array([item_seed(seed, name) for name in joined["tile_id"]], np.uint64))


def with_likes(drawn: pd.DataFrame, request: Request, likes: pd.DataFrame | None, seed: int) -> pd.DataFrame:
    """Plan rows, each with the tile whose embedding it is given: one of `likes`, the rows that `like` picks; None where it picks none.

    It is of the scale that the row is to have, where `likes` has any of that scale.
    """
    if likes is None:
        return drawn
    order = np.random.default_rng(item_seed(seed, f"plan/{request.name}-/like"))
    changed = request.change.mpp
    out, scales = drawn.copy(), drawn["mpp"] if changed is None else pd.Series(changed, drawn.index)
    for mpp, members in drawn.groupby(scales):
        of_scale = likes[likes["mpp"] == mpp]
        tiles = in_rounds(of_scale if len(of_scale) else likes, len(members), order)
        out.loc[members.index, "like_ref"] = tiles["tile_id"].to_numpy()
        out.loc[members.index, "like_group"] = tiles["split_group"].to_numpy()
    return out


@dataclass(frozen=True)
class InputTiles:
    """The arrays of the tiles that a plan's rows begin from, and where they are made anew.

    given : plan rows to the arrays that their conditions are made of, edited.
    """

    store: TileStore
    rows: pd.DataFrame
    params: Params
    given: Callable[[pd.DataFrame], dict[str, np.ndarray]]

    @cached_property
    def _by_id(self) -> pd.DataFrame:
        return self.rows.set_index("tile_id", drop=False)

    def write(self, plan: pd.DataFrame, folder: Path) -> dict[str, int]:
        """Write a part; how many tiles it has."""
        program = Program.read(plan["program"].iloc[0])
        tiles = self._by_id.loc[plan["input_ref"]]
        arrays = {name: self.store.read(tiles, name) for name in self._names(program)}
        if program.remake.any:
            arrays[FREE] = self._free(program.remake, plan, tiles)
        if program.remake.blend_um:
            widths = program.remake.blend_um / tiles["mpp"].to_numpy(float)
            arrays[BLEND] = np.stack([share_anew(one, px) for one, px in zip(arrays[FREE] > 0, widths)])
        return write_arrays(folder, arrays)

    def _names(self, program: Program) -> Sequence[str]:
        config = [*self.params.chains()[program.chain or self.params.sample.chain].values()][-1].train_denoiser
        found = dict.fromkeys(registered("target", config.target.name).reads)
        for condition in (registered("condition", name) for name in config.conditions if program.start.inverted):
            found |= dict.fromkeys([*condition.reads, *filter(self.store.has_everywhere, condition.carries)])
        return tuple(found)

    def _free(self, remake: Remake, plan: pd.DataFrame, tiles: pd.DataFrame) -> np.ndarray:
        """Where each tile is made anew, (n, h, w) uint8."""
        side, mpp = self.params.tile.tile_px, tiles["mpp"].to_numpy(float)
        free = np.zeros((len(plan), side, side), bool)
        if remake.classes or remake.edited:
            mask, classes = self.store.read(tiles, "mask"), ("background", *self.params.tile.masks.classes)
            free |= np.isin(mask, [classes.index(name) for name in remake.classes])
            free |= (self.given(plan)["mask"] != mask) if remake.edited else False
        if remake.centre_um:
            place = np.hypot(*(axis - (side - 1) / 2 for axis in np.ogrid[:side, :side]))
            free |= place <= (remake.centre_um / 2 / mpp)[:, None, None]
        if remake.grow_um:
            free = np.stack([_grown(one, remake.grow_um / scale) for one, scale in zip(free, mpp)])
        if (empty := ~free.any((1, 2))).any():
            raise HistoloomError(
                f"plan.requests, '{plan['request'].iloc[0]}': {empty.sum()} tile(s) have nothing to be made anew, such as "
                f"{tiles['tile_id'].to_numpy()[empty][0]}: state where.contains, or a region that every tile has."
            )
        return free.astype(np.uint8)


def share_anew(free: np.ndarray, blend_px: float) -> np.ndarray:
    """How much of each pixel is new, (h, w) uint8: 0 outside the region `free` (h, w) bool, and 255 from a depth of `blend_px` on.

    A separate part of the region that is not so deep is wholly new in its middle; a neck between two parts keeps much of the old pixels.
    """
    if free.all() or not free.any():
        return np.where(free, 255, 0).astype(np.uint8)
    depth = distance_transform_edt(free)  # of its outermost pixels: 1
    parts, count = label(free, np.ones((3, 3)))
    deepest = np.concatenate([[1.0], np.atleast_1d(maximum(depth, parts, np.arange(1, count + 1)))])
    return np.rint(255 * np.minimum(1, depth / np.clip(blend_px, 1, deepest[parts]))).astype(np.uint8)


def _grown(free: np.ndarray, px: float) -> np.ndarray:
    return distance_transform_edt(~free) <= px if free.any() else free


def input_tiles(plan: Path, part: str, name: str) -> np.ndarray | None:
    """An array of the tiles that a part of the plan begins from, in its rows' order; None where they have none of this name."""
    if not (plan / INPUTS / part).is_dir():
        return None
    store = TileStore(plan / INPUTS)
    return np.asarray(store.array(part, name)[:]) if store.has(name, part) else None
