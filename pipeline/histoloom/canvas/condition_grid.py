"""Conditions on a coarse grid over a canvas: labels, captions, expression, genotypes, embeddings that vary in space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from histoloom.conditions.batch import Conditions, cat
from histoloom.conditions.encode import Encoders, batch, null
from histoloom.config import Params, WovenSlide
from histoloom.data.store import TileStore
from histoloom.data.tables import with_conditions
from histoloom.errors import Fault, ManifestFaults


@dataclass(frozen=True)
class Field:
    """Conditions on a coarse grid, interpolated at the middle of each window.

    Vectors and tokens are mixed by the distances to the four grid points around; a token counts where its caption has
    one.

    Parameters
    ----------
    points : the distinct conditions, and after them the nulls of all.
    index : (rows, columns) int, which of them each grid point has.
    spacing : (rows, columns) latent px between grid points; the first lies half of it inside the canvas.
    """

    points: Conditions
    index: torch.Tensor
    spacing: tuple[float, float]

    @property
    def nothing(self) -> Conditions:
        return self.points.each(lambda value: value[-1:])

    def at(self, y: np.ndarray, x: np.ndarray) -> Conditions:
        """At places (n,) in latent px; beyond the outermost grid points it is what they state."""
        places, shares = self._around(y, x)
        points = self.points

        def mixed(values: torch.Tensor) -> torch.Tensor:
            rows = values[places].float()
            return (rows * shares.view(*shares.shape, *(1,) * (rows.ndim - 2))).sum(1)

        vector = None if points.vector is None else mixed(points.vector)
        if points.sequence is None:
            return Conditions(vector=vector)
        there = points.sequence_mask.float()
        weight = mixed(there)
        tokens = mixed(points.sequence * there[..., None]) / weight.clamp(min=1e-6)[..., None]
        return Conditions(tokens, weight > 0, vector)

    def _around(self, y: np.ndarray, x: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The four points around each place, and their shares."""
        axes = []
        for place, gap, count in zip((y, x), self.spacing, self.index.shape):
            at = np.clip(place / gap - 0.5, 0, count - 1)
            low = np.floor(at).astype(int)
            axes.append((low, np.minimum(low + 1, count - 1), at - low))
        (top, bottom, down), (left, right, along) = axes
        corners = [(top, left), (top, right), (bottom, left), (bottom, right)]
        shares = [(1 - down) * (1 - along), (1 - down) * along, down * (1 - along), down * along]
        index = self.index.numpy()
        return torch.from_numpy(np.stack([index[c] for c in corners], 1)), torch.from_numpy(np.stack(shares, 1)).float()

    def save(self, path: Path) -> None:
        named = {k: v for k, v in vars(self.points).items() if v is not None and k != "map"}
        save_file(named | {"index": self.index, "spacing": torch.tensor(self.spacing)}, path)

    @classmethod
    def load(cls, path: Path) -> Field:
        read = load_file(path)
        index, spacing = read.pop("index"), read.pop("spacing")
        return cls(Conditions(**read), index, tuple(spacing.tolist()))


_COLUMNS = ("label", "caption", "rna", "genotype")


def state_field(
    slide: WovenSlide, params: Params, canvas, factor: int, specs, encoders: Encoders, store: TileStore
) -> tuple[Field, set[str], list[list[dict]]]:
    """The conditions other than maps, the groups of the tiles that lent them, and what each point of the grid states.

    Raises
    ------
    ManifestFaults
        for a tile or an expression profile that isn't there.
    """
    whole = {name: getattr(slide, name) for name in _COLUMNS}
    table = pd.DataFrame([whole | {"row": 0, "col": 0}]) if slide.field is None else read_field(slide, params, whole)
    tiles = with_conditions(store.rows(), params).drop_duplicates("tile_id").set_index("tile_id", drop=False)
    lenders: set[str] = set()
    profiles = next((encoder.codes.index for encoder in encoders.encoders if encoder.name == "rna"), ())
    if faults := _unknown(slide, table, tiles, profiles):
        raise ManifestFaults(faults)
    if "tile_id" in table:
        lent = tiles.reindex(table["tile_id"].to_numpy(object))
        for name in _COLUMNS:
            table[name] = table[name].where(table[name].notna(), pd.Series(lent[name].to_numpy(object), table.index))
        lenders = set(lent["split_group"].dropna())
    if "rna" in encoders.names and table["rna"].notna().any():
        lenders |= set(tiles.loc[tiles["rna"].isin(table["rna"].dropna()), "split_group"])
    rows = table.assign(mpp=params.tile.mpp).replace({np.nan: None}).astype({"mpp": float})
    without_maps = Encoders(tuple(e for e in encoders.encoders if e.shape != "map"))
    arrays = without_maps.arrays(rows, _pictures(rows, tiles, store))
    if "image" in arrays and "tile_id" in rows:
        arrays["image"][rows["tile_id"].isna().to_numpy()] = 0
    elif "image" in arrays:
        arrays["image"][:] = 0
    others = tuple(s for s in specs if s.shape != "map")
    points = cat([batch(arrays, others, np.arange(len(rows))), null(arrays, others)])
    shape = int(table["row"].max()) + 1, int(table["col"].max()) + 1
    index = np.full(shape, -1)
    index[table["row"].astype(int), table["col"].astype(int)] = np.arange(len(table))
    sides = (slide.height_px / factor, slide.width_px / factor)
    spacing = tuple(side / count for side, count in zip(sides, shape))
    stated = rows[list(_COLUMNS)].to_dict("records")
    return Field(points, torch.from_numpy(index), spacing), lenders, [[stated[i] for i in row] for row in index]


def _unknown(slide: WovenSlide, table: pd.DataFrame, tiles: pd.DataFrame, profiles) -> list[Fault]:
    """Tiles and profiles that are named and aren't there."""
    where, faults = slide.field or f"params.yaml, slide '{slide.name}'", []
    for column, known, remedy in (
        ("tile_id", tiles.index, "name a tile of data/tiles (histoloom preview shows them)."),
        ("rna", profiles, "name a sample of train_encoders.rna.table."),
    ):
        named = table[column] if column in table else pd.Series(dtype=object)
        for line in np.flatnonzero(named.notna() & ~named.isin(known)):
            problem, row = f"'{named.iloc[line]}' isn't there.", None if slide.field is None else int(line) + 2
            faults.append(Fault(where, problem, remedy, row, column))
    return faults


def _pictures(rows: pd.DataFrame, tiles: pd.DataFrame, store: TileStore) -> Callable[[str], np.ndarray]:
    """The lenders' own tiles; black where a point has none."""

    def read(name: str) -> np.ndarray:
        lent = rows["tile_id"].notna().to_numpy() if "tile_id" in rows else np.zeros(len(rows), bool)
        found = store.read(tiles.loc[rows["tile_id"][lent]] if lent.any() else tiles.head(0), name)
        out = np.zeros((len(rows), *found.shape[1:]), found.dtype)
        out[lent] = found
        return out

    return read


def read_field(slide: WovenSlide, params: Params, whole: dict) -> pd.DataFrame:
    """A field's table; what a row leaves open is as for the whole slide."""
    where, faults = slide.field, []
    try:
        table = pd.read_csv(where, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestFaults(
            [Fault(where, "the file is missing.", f"put it there, or mend slide '{slide.name}'.")]
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        problem = f"it is not a readable CSV ({error})."
        raise ManifestFaults([Fault(where, problem, "save it as UTF-8 with a header line.")]) from None
    known = {"row", "col", "tile_id", *_COLUMNS}
    faults += [
        Fault(where, "this column means nothing here.", f"use {sorted(known)}.", 1, c) for c in table if c not in known
    ]
    faults += [Fault(where, "the column is missing.", "add it.", 1, c) for c in ("row", "col") if c not in table]
    if faults:
        raise ManifestFaults(faults)
    table = table.replace({"": None})
    for column in ("row", "col"):
        table[column] = pd.to_numeric(table[column], errors="coerce")
        for line in np.flatnonzero(table[column].isna() | (table[column] < 0) | (table[column] % 1 != 0)):
            faults.append(
                Fault(where, "it is no whole number from 0 up.", "count rows and columns.", int(line) + 2, column)
            )
    if "label" in table:
        for line in np.flatnonzero(~table["label"].isin([None, *params.tile.labels.classes])):
            problem = f"unknown label '{table['label'].iloc[line]}'."
            faults.append(Fault(where, problem, "use one of tile.labels.classes.", int(line) + 2, "label"))
    if not faults:
        wanted = (table["row"].max() + 1) * (table["col"].max() + 1)
        if table.duplicated(["row", "col"]).any() or len(table) != wanted:
            faults.append(
                Fault(where, f"{len(table)} rows are no whole grid of {wanted:.0f} points.", "state each point once.")
            )
    if faults:
        raise ManifestFaults(faults)
    return table.assign(**{n: table[n].where(table[n].notna(), v) if n in table else v for n, v in whole.items()})
