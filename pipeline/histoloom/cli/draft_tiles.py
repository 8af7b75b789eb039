"""Params drafted from a set of tiles: its classes, its size, its scale, and what of it has to be stated."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from histoloom.config import TileSet
from histoloom.data.tile_sets.read import read_stored
from histoloom.data.tile_sets.tiles import TileTable, list_set
from histoloom.errors import HistoloomError, lines_of
from histoloom.slides.tile_picture import BadPicture, size_of

_LOOKED_AT = 64
_MULTIPLE_PX = 32
"""What a new study's latents of a tile can be halved by, in pixels."""
_MOST_PX, _CUT_PX = 512, 256
"""Larger pictures are cut into a grid of tiles."""
_CLASSES_SHOWN = 8


@dataclass(frozen=True)
class TilesDraft:
    """What a set of tiles tells of a study.

    tile : the section `tile` as far as it is told; null takes keys of slides away. has_labels : whether any tile has a label. words : what was found. left : what has to be
    stated, each with the key.
    """

    tile: dict
    has_labels: bool
    words: list[str]
    left: list[str]


def draft_tiles(path: str, mpp: float | None) -> TilesDraft:
    """Look at a set as `tile` would.

    mpp : the scale of its pictures, µm/px, if it is known.

    Raises
    ------
    HistoloomError
        when no set of tiles lies there.
    """
    config = TileSet(path=str(Path(path).resolve()), mpp=mpp)
    table, found = list_set(config)
    if table is None:
        raise HistoloomError("\n".join(["This is no set of tiles:", *lines_of(found)]))
    labels = Counter(name for name in table.rows["label"] if name)
    sides, scales = _sides(table), table.rows["mpp"].dropna()
    px, larger, of_size = _size(sides)
    stated: dict = {"path": config.path, "mpp": mpp, "larger": larger, "patterns": {}, "values": {}}
    tile: dict = {"manifest": None, "slides_root": None, "annotations_root": None, "sets": [stated]}
    tile |= {} if px is None else {"tile_px": px, "stride_px": px}
    tile |= {} if scales.empty else {"mpp": float(scales.max())}
    tile |= {"labels": {"source": "slide", "classes": sorted(labels)}} if labels else {}
    words = [f"{len(table):,} picture(s) found in {path} ({table.form}). {of_size}", _of_labels(labels, len(table))]
    words += lines_of(found)
    return TilesDraft(tile, bool(labels), words, _left(table))


def _sides(table: TileTable) -> list[tuple[int, int]]:
    """Width and height of a few pictures, spread over the set; of those that can be read."""
    rows = table.rows.iloc[np.unique(np.linspace(0, len(table) - 1, _LOOKED_AT).astype(int))]
    sides = []
    for picture, _ in read_stored(table.config, table.form, table.files, rows):
        if isinstance(picture, bytes | np.ndarray):
            with suppress(BadPicture):  # validate says which can't be read
                sides.append(size_of(picture))
    return sides


def _size(sides: list[tuple[int, int]]) -> tuple[int | None, str, str]:
    """Side of the tiles, how larger pictures are cut, and both in words."""
    if not sides:
        return None, "centre", "None that was looked at can be read."
    least, most = min(map(min, sides)), max(map(max, sides))
    said = f"Their sides are {least} px" + (f" to {most} px" if most > least else "")
    if least > _MOST_PX:
        return _CUT_PX, "grid", f"{said}: they are cut into a grid of tiles of {_CUT_PX} px (larger: grid)."
    px = least // _MULTIPLE_PX * _MULTIPLE_PX or least
    cut = (
        f": tiles are the {px} px at their centre, as a tile's side is a multiple of {_MULTIPLE_PX}"
        if px < most
        else ""
    )
    return px, "centre", f"{said}{cut}."


def _of_labels(labels: Counter[str], tiles: int) -> str:
    if not labels:
        return "No picture states a label: the study is one without labels (recipe no-labels)."
    shown = ", ".join(f"{name} ({count:,})" for name, count in labels.most_common(_CLASSES_SHOWN))
    more = f" and {len(labels) - _CLASSES_SHOWN} more" if len(labels) > _CLASSES_SHOWN else ""
    unlabelled = tiles - sum(labels.values())
    without = (
        f" {unlabelled:,} have none, and are left out unless tile.labels.unlabelled is keep." if unlabelled else ""
    )
    return f"Labels: {shown}{more}.{without}"


def _left(table: TileTable) -> list[str]:
    rows, left = table.rows, []
    if rows["mpp"].isna().any():
        left.append("the scale of the pictures, µm/px: tile.mpp, and mpp of tile.sets")
    nobody = (rows["patient_id"] == "") & (rows["slide_id"] == "")
    if nobody.any():
        left.append(
            f"whose the tiles are: patterns, columns or values of tile.sets{_guess(list(rows.loc[nobody, 'name']))}"
        )
    return left


def _guess(names: list[str]) -> str:
    """A pattern that may name patients, where the names of files begin alike; it is never written without being asked."""
    stems = [PurePosixPath(name).name for name in names]
    for mark in "_-":
        begun = Counter(stem.partition(mark)[0] for stem in stems if mark in stem)
        if sum(begun.values()) == len(stems) and 2 <= len(begun) <= len(stems) / 2:
            few = ", ".join([*begun][:3])
            pattern = rf"^(?:.*/)?([^{re.escape(mark)}/]+){mark}"
            return f". Names begin with {len(begun)} words ({few}, ...): if these are patients, patterns: {{patient_id: '{pattern}'}}"
    return ""
