"""One part of a set of tiles: pictures read, brought to the tiles' scale and size, described and written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, cast

import numpy as np
import pandas as pd

from histoloom.config import Tile
from histoloom.data.commit import commit_part
from histoloom.data.schema import TILE_ROW, write_rows
from histoloom.data.slide_fields import parsed
from histoloom.data.splits import chance
from histoloom.data.store import UNKNOWN, ArraySpec, TileWriter, cut_arrays
from histoloom.data.tile_sets.arrays import VOLUME
from histoloom.data.tile_sets.check import SAME_SCALE
from histoloom.data.tile_sets.read import Unreadable, read_stored
from histoloom.data.tile_sets.tiles import TileTable
from histoloom.data.tile_sets.volumes import Volumes, volumes
from histoloom.slides import stain
from histoloom.slides.describe import TileFacts, TileLabel, class_fractions, class_of
from histoloom.slides.focus import sharpness
from histoloom.slides.grid import grid
from histoloom.slides.stain_mask import StainMask, fit_stain_mask
from histoloom.slides.tile_picture import SHEET, BadPicture, Cut, as_ids, as_rgb, contact_sheet, piece, small_pictures
from histoloom.slides.tile_set_job import SetJob, packed, packed_files
from histoloom.slides.tissue import tile_tissue_fraction

_MOST_ID = 2**16 - 1
_SHARD_BYTES, _MOST_A_SHARD, _LEAST_A_SHARD = 2**27, 1024, 128


class SetRecord(TypedDict):
    """What is written down of a set's part.

    bad : names of pictures that can't be used, each with why.
    hidden : split to the number of tiles whose labels the study may not see.
    unlabelled, out_of_focus : tiles without a label, and blurred ones; whether they were dropped is in params.
    resampled, cut : pictures brought to another scale, and those cut to a tile's size.
    tissue_fraction : mean of the tiles'.
    stain : what the normalisation says of itself, to the number of slides.
    """

    tiles: int
    bad: list[tuple[str, str]]
    hidden: dict[str, int]
    unlabelled: int
    out_of_focus: int
    resampled: int
    cut: int
    tissue_fraction: float
    stain: dict[str, int]


@dataclass(frozen=True)
class SetResult:
    """What became of a part; `made` is whether it was made now, and not taken as it was."""

    name: str
    part: str
    facts: SetRecord
    made: bool


def make_set_part(job: SetJob) -> SetResult:
    """Make a part, unless it is there."""
    name = job.part
    made = not (job.parts / name).exists()
    with small_pictures():
        record = commit_part(job.parts, name, lambda folder: _Part(job).write(folder))
    return SetResult(job.config.id, name, cast(SetRecord, record["info"]), made)


def look_at(table: TileTable, tile: Tile, most: int) -> tuple[list[tuple[str, str]], int]:
    """Of at most so many pictures, spread over a set: those that can't be used, each with why, and how many were looked at."""
    rows = table.rows.iloc[np.unique(np.linspace(0, len(table) - 1, most).astype(int))]
    files, nothing = packed_files(table.files), packed(rows.iloc[:0])
    coarsest = max(tile.at_scales(table.config), key=lambda of: of.mpp)  # which needs the largest pictures
    part = _Part(SetJob(table.config, table.form, files, packed(rows), nothing, coarsest))
    looked = sum(1 for _ in part.pictures(rows)) + len(part.bad)
    return part.bad, looked


def tiles_a_shard(tile_px: int) -> int:
    """How many tiles a file of the store holds, so that a large set has few files and little is held in memory."""
    fitting = _SHARD_BYTES // (tile_px * tile_px * 3)
    return max(_LEAST_A_SHARD, min(_MOST_A_SHARD, 1 << max(0, fitting.bit_length() - 1)))


@dataclass
class _Part:
    job: SetJob
    counts: Counter = field(default_factory=Counter)
    hidden: Counter = field(default_factory=Counter)
    bad: list[tuple[str, str]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    fits: dict[str, tuple[stain.Normaliser, StainMask | None]] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """What ids of masks stand for."""
        tile = self.job.tile
        return tile.masks.classes if self.masked or self.drawn else tile.labels.classes

    @property
    def masked(self) -> bool:
        return self.job.tile.masks.source in ("polygons", "raster")

    @property
    def drawn(self) -> bool:
        """Whether masks say where classes are that the stain would tell otherwise."""
        return self.job.tile.masks.source == "stain" and self.job.tile.labels.source != "raster"

    def write(self, folder: Path) -> SetRecord:
        job, tile = self.job, self.job.tile
        by_stain = tile.masks.source == "stain"
        arrays = ["image"] + ["mask"] * (self.masked or by_stain) + ["instance", "edge"] * by_stain
        sheet: list[np.ndarray] = []
        every = max(1, len(job.rows) // SHEET**2)
        with (
            volumes(job.config, job.form, job.files) as held,
            TileWriter(folder, self._specs(arrays, held), tiles_a_shard(tile.tile_px)) as writer,
        ):
            for row, cuts in self.pictures(job.rows):
                for cut in cuts:
                    try:
                        self._add(row, cut, writer, held)
                    except BadPicture as error:
                        self.bad.append((row.name, str(error)))
                    if writer.count > len(sheet) * every and len(sheet) < SHEET**2:
                        sheet.append(cut.picture)
            writer.finish()
            rows = pd.DataFrame(self.rows, columns=TILE_ROW.names)
            write_rows(rows, folder / "rows.parquet", TILE_ROW)
            if sheet:
                contact_sheet(sheet).save(folder / "thumbnail.jpg", quality=85)
        return {
            "tiles": len(rows),
            "bad": self.bad,
            "hidden": dict(self.hidden),
            "unlabelled": self.counts["unlabelled"],
            "out_of_focus": self.counts["out_of_focus"],
            "resampled": self.counts["resampled"],
            "cut": self.counts["cut"],
            "tissue_fraction": round(float(rows["tissue_fraction"].mean()), 4) if len(rows) else 0.0,
            "stain": dict(Counter(fitted.note for fitted, _ in self.fits.values())),
        }

    def _specs(self, arrays: list[str], held: Volumes) -> tuple[ArraySpec, ...]:
        return (*cut_arrays(self.job.tile.tile_px, arrays), *([held.spec] if held.spec else []))

    def pictures(self, rows: pd.DataFrame) -> Iterator[tuple[Any, list[Cut]]]:
        """Each row with its tiles; a picture that can't be used is written down and has none."""
        job = self.job
        stored = read_stored(job.config, job.form, job.files, rows)
        for row, (picture, mask) in zip(rows.itertuples(), stored, strict=True):
            try:
                if isinstance(picture, Unreadable):
                    raise BadPicture(str(picture))
                if isinstance(mask, Unreadable):
                    raise BadPicture(f"its mask: {mask!s}")
                wanted = mask is not None and (self.masked or self.drawn or job.tile.labels.source == "raster")
                yield row, self._cut(as_rgb(picture), self._ids(as_ids(mask)) if wanted else None, row.mpp)
            except BadPicture as error:
                self.bad.append((row.name, str(error)))

    def _ids(self, found: np.ndarray) -> np.ndarray:
        """Values of a mask as ids of classes."""
        values, most = self.job.config.mask_values, int(found.max(initial=0))
        if most > _MOST_ID:
            raise BadPicture(f"its mask holds {most}, and {_MOST_ID} is the most")
        if values:
            table = np.full(max(most, *values) + 1, UNKNOWN, np.uint8)
            table[0] = 0
            for value, name in values.items():
                table[value] = 1 + self.classes.index(name)
            ids = table[found]
            if (ids == UNKNOWN).any():
                raise BadPicture(f"its mask holds {int(found[ids == UNKNOWN][0])}, which mask_values doesn't name")
            return ids
        if most > len(self.classes):
            raise BadPicture(f"its mask holds {most}, and there are {len(self.classes)} classes: state mask_values")
        return found.astype(np.uint8)

    def _cut(self, picture: np.ndarray, mask: np.ndarray | None, mpp: float) -> list[Cut]:
        tile, (height, width) = self.job.tile, picture.shape[:2]
        if mask is not None and mask.shape != (height, width):
            raise BadPicture(f"its mask is {mask.shape[1]} x {mask.shape[0]} px, and it is {width} x {height}")
        scale = 1.0 if abs(tile.mpp / mpp - 1) <= SAME_SCALE else tile.mpp / mpp
        side = tile.tile_px * scale
        if min(width, height) < side - 0.5:
            raise BadPicture(f"it is {width} x {height} px, and a tile needs {side:g}: state a smaller tile.tile_px")
        corners = self._corners(width, height, scale)
        self.counts["resampled"] += scale != 1
        self.counts["cut"] += (width, height) != (round(side), round(side))
        return [piece(picture, mask, corner, scale, tile.tile_px) for corner in corners]

    def _corners(self, width: int, height: int, scale: float) -> list[tuple[float, float]]:
        """Corners (x, y) of the tiles, in pixels of the picture."""
        tile, side = self.job.tile, self.job.tile.tile_px * scale
        if self.job.config.larger == "centre":
            middle = (max(0.0, (width - side) / 2), max(0.0, (height - side) / 2))
            return [middle if scale != 1 else (int(middle[0]), int(middle[1]))]
        sides = round(width / scale), round(height / scale)
        shift = None if tile.edge == "drop" else 1
        return [(x * scale, y * scale) for x, y in grid(*sides, tile.tile_px, tile.stride_px, shift)]

    def _add(self, row: Any, cut: Cut, writer: TileWriter, held: Volumes) -> None:
        """Write a tile and its row, unless params leave it out."""
        job, tile = self.job, self.job.tile
        if held.spec and (held.spec.shape[1:] != cut.picture.shape[:2] or row.mpp != tile.mpp):
            raise BadPicture(
                "a volume is neither cut nor brought to another scale: set tile.tile_px and mpp to its own"
            )
        known = row.visible == 1 or chance(f"{row.slide_id}/{row.split}/{row.tile_id}", job.seed) < row.visible
        self.hidden[row.split] += not known
        seen = cut.mask if known else None
        fractions = {} if seen is None or self.drawn else class_fractions(seen, self.classes)
        label = self._label(row.label, fractions) if known else None
        if label is None and tile.labels.source != "none":
            self.counts["unlabelled"] += known
            if tile.labels.unlabelled == "drop":
                return
        sharp = sharpness(cut.picture, tile.mpp) >= tile.tissue.min_sharpness
        self.counts["out_of_focus"] += not sharp
        if not sharp and tile.tissue.out_of_focus == "drop":
            return
        normaliser, segmenter = self._fit(row.slide_id)
        masked, measured, arrays = self.masked and seen is not None, "", {}
        if segmenter is not None:
            segmented = segmenter.segment(cut.picture, tile.mpp, self._drawn(seen))
            masked, measured, arrays = True, segmenter.words(segmented), segmented.arrays
        elif self.masked:
            unknown = np.full(cut.picture.shape[:2], UNKNOWN, np.uint8)
            arrays = {"mask": unknown if seen is None else seen}
        if held.spec:
            arrays = arrays | {VOLUME: held.read(row.file, row.at)}
        writer.add(image=normaliser.apply(cut.picture), **arrays)
        tissue = tile_tissue_fraction(cut.picture, tile.mpp, tile.tissue)
        extra = {name: str(value) for name, value in parsed(row.fields).items()}
        found = TileLabel(label, fractions)
        facts = TileFacts(self._place(row, cut), row.caption, extra, found, tissue, measured, masked)
        self.rows.append(facts.row(tile))

    def _drawn(self, mask: np.ndarray | None) -> dict[str, np.ndarray]:
        """Classes that a mask knows of, to where they are."""
        if mask is None or not self.drawn:
            return {}
        known = set(self.job.config.mask_values.values()) or set(self.classes)
        return {name: mask == 1 + number for number, name in enumerate(self.classes) if name in known}

    def _label(self, stated: str, fractions: dict[str, float]) -> str | None:
        """The label that is stated; else, where rasters label tiles, the class that covers enough of the mask."""
        labels = self.job.tile.labels
        if labels.source == "none":
            return None
        if stated or labels.source != "raster":
            return stated or None
        return class_of(labels, fractions)

    def _place(self, row: Any, cut: Cut) -> dict[str, Any]:
        (x, y), placed = cut.corner, row.x_level0_px >= 0 and row.y_level0_px >= 0
        return {
            **{name: getattr(row, name) for name in ("slide_id", "patient_id", "split_group", "split")},
            "tile_id": f"{row.tile_id}_{x}_{y}" if self.job.config.larger == "grid" else row.tile_id,
            "x_level0_px": row.x_level0_px + x if placed else -1,
            "y_level0_px": row.y_level0_px + y if placed else -1,
            "mpp": self.job.tile.mpp,
        }

    def _fit(self, slide_id: str) -> tuple[stain.Normaliser, StainMask | None]:
        """What is fitted to a slide, from those of its tiles that the job names."""
        if self.job.fit.empty:
            return _NOTHING_FITTED
        if slide_id not in self.fits:
            tile, apart = self.job.tile, _Part(self.job)  # a bad picture among them is counted with its own part
            mine = self.job.fit[self.job.fit["slide_id"] == slide_id]
            cuts = [cuts[0].picture for _, cuts in apart.pictures(mine)]
            if not cuts:
                raise BadPicture(f"no tile of slide '{slide_id}' can be read to which its stain could be fitted")
            sample = np.stack(cuts)
            segmenter = fit_stain_mask(tile.masks.classes, sample, tile.mpp) if tile.masks.source == "stain" else None
            self.fits[slide_id] = stain.fit(tile.stain, sample), segmenter
        return self.fits[slide_id]


_NOTHING_FITTED = stain.fit("none", np.empty(0)), None
