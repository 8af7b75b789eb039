"""The ids that tables are matched with are those of the manifest, before a tile is cut."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from histoloom.config import Tile
from histoloom.data.groups import study_keys
from histoloom.data.manifest import Manifest
from histoloom.data.slide_entry import SlideEntry


def test_ids_of_the_study_are_of_train_and_of_all():
    slides = tuple(SlideEntry(f"s{n}", Path(f"s{n}.png"), f"P{n // 2}", n + 2) for n in range(4))
    spots = pd.DataFrame({"spot_id": ["a", "b", "c"], "slide_id": ["s0", "s3", "elsewhere"]})
    tile = Tile.model_validate(
        {"mpp": 0.5, "tile_px": 64, "stride_px": 64, "tissue": {"mpp": 4.0}, "labels": {"classes": ["t"]}}
    )
    manifest, splits = Manifest(slides, spots), {"P0": "train", "P1": "test"}
    found = {key: study_keys(manifest, tile, splits, key) for key in ("patient_id", "slide_id", "spot_id")}
    assert (found["patient_id"].train, found["patient_id"].every) == ({"P0"}, {"P0", "P1"})
    assert (found["slide_id"].train, found["slide_id"].every) == ({"s0", "s1"}, {"s0", "s1", "s2", "s3"})
    assert (found["spot_id"].train, found["spot_id"].every) == ({"a"}, {"a", "b"})
