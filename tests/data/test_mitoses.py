"""Mitotic figures of a public set: their centres, and no slide in two splits."""

from __future__ import annotations

import numpy as np
import pandas as pd
from PIL import Image

from histoloom.data.mitoses import FILE, LABELS, SET, write_mitoses


def test_slides_are_split_whole_and_other_sets_are_left_out(tmp_path):
    rng, rows = np.random.default_rng(0), []
    for number in range(24):
        picture = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        rows.append(
            (f"{number}.png", SET if number < 20 else "other", LABELS[number % 2], f"A:{number // 2}.tiff", "scanner")
        )
    pd.DataFrame(rows, columns=["path", "set", "label", "slide_id", "domain"]).to_csv(
        tmp_path / "tiles.csv", index=False
    )
    write_mitoses(tmp_path / "study", tmp_path, 8)
    with np.load(tmp_path / "study" / FILE) as found:
        of_slide = pd.Series(found["split"]).groupby(found["slide_id"]).nunique()
        assert found["images"].shape == (20, 8, 8, 3) and (of_slide == 1).all() and len(of_slide) == 10
        assert {*found["split"]} == {"train", "val", "test"} and {*found["label"]} == {*LABELS}
        first = np.asarray(Image.open(tmp_path / "0.png"))[4:12, 4:12]
        assert (found["images"] == first).all((1, 2, 3)).any()
