"""Sets of tiles: some of their pictures, read as `tile` will read them, and the classes that their slides show."""

from __future__ import annotations

import numpy as np

from histoloom.config import Tile
from histoloom.data.manifest import Manifest
from histoloom.data.tile_sets.listing import NONE, shown
from histoloom.data.tile_sets.tiles import TileTable
from histoloom.errors import Fault, Note
from histoloom.progress import track
from histoloom.slides.tile_set_part import look_at
from histoloom.slides.train_classes import AnnotatedClasses

_LOOKED_AT = 64


def open_sets(manifest: Manifest, config: Tile) -> list[Fault | Note]:
    """Faults of pictures that can't be used, as far as a few of each set show it."""
    found: list[Fault | Note] = []
    for table in track(manifest.sets, "sets", len(manifest.sets)) if manifest.sets else ():
        if np.isnan(table.rows["mpp"]).any():
            continue  # which is a fault already
        bad, looked = look_at(table, config, _LOOKED_AT)
        if not bad:
            continue
        reasons = list(dict.fromkeys(reason for _, reason in bad))
        said = f"{len(bad)} of {looked} pictures that were looked at can't be used: {shown(name for name, _ in bad)}; {'; '.join(reasons[:3])}."
        if len(bad) > config.max_bad_tiles:
            remedy = "mend or remove them, or raise tile.max_bad_tiles."
            found.append(Fault(table.config.path, said, remedy))
        else:
            found.append(Note(table.config.path, said))
    return found


def classes_of_sets(manifest: Manifest, config: Tile) -> dict[str, AnnotatedClasses]:
    """Slide of a set to the classes that its tiles state; masks, which aren't read here, may show any."""
    out: dict[str, AnnotatedClasses] = {}
    for table in manifest.sets:
        masks = frozenset(config.masks.classes if _has_masks(table, config) else ())
        by_mask = frozenset(config.labels.classes) if config.labels.source == "raster" and masks else frozenset()
        for slide, labels in table.rows.groupby("slide_id")["label"].agg(frozenset).items():
            before = out.get(str(slide), AnnotatedClasses(frozenset(), frozenset()))
            named = (labels & {*config.labels.classes}) | by_mask
            out[str(slide)] = AnnotatedClasses(before.labels | named, before.masks | masks)
    return out


def _has_masks(table: TileTable, config: Tile) -> bool:
    return config.masks.source == "stain" or bool((table.rows["mask_file"] != NONE).any())
