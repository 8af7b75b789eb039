"""Woven slides cut back into tiles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from histoloom.config import Params, Tissue
from histoloom.data.commit import commit_part
from histoloom.data.pixel_box import PixelBox
from histoloom.data.store import TileStore, stores_in
from histoloom.slides.polygons import write_polygons
from histoloom.slides.pyramid import PyramidPicture, TiffFormat, write_pyramid
from histoloom.studies.tile_slides import WovenJob, cut_woven
from tests.build import tissue_picture
from tests.stages import run, study_of

SAMPLING = {
    "scheduler": "ddim", "steps": 4, "precision": "fp32", "window_layout": "lattice",
    "guidance": [{"condition": "all", "scale": 2.0, "start": 0.0, "end": 1.0}],
}  # fmt: skip
FACTS = {
    "name": "s", "mpp": 1.0, "label": None, "width_px": 256, "height_px": 192, "seed": 2**63 + 5, "sampling": SAMPLING,
    "generator_sha256": "g", "purpose": "augment", "ancestors": ["a"],
    "points": [[{"label": "stroma", "caption": None, "rna": None, "genotype": None, "cohort": None, "number": None},
                {"label": "tumour", "caption": "PINK", "rna": "k", "genotype": "TP53=wt",
                 "cohort": None, "number": None}]],
}  # fmt: skip


def config_of(source: str, classes=("left", "right"), masks=("left", "right")):
    tile = {
        "mpp": 1.0,
        "tile_px": 64,
        "stride_px": 16,
        "caption": "{stain} of {organ}, {composition}",
        "tissue": {"mpp": 8.0, "min_fraction": 0.0},
        "labels": {"source": source, "classes": list(classes)},
        "masks": {"source": "polygons", "classes": list(masks)},
    }
    return Params.model_validate({"tile": tile}).tile


def make_woven(root: Path, picture: np.ndarray, **facts) -> Path:
    ids = np.zeros((192, 256, 1), np.uint8)
    ids[:, :128], ids[:, 128:] = 1, 2
    ids[20:23, 30:32] = 2  # a nucleus of six pixels

    def write(folder: Path) -> None:
        for name, pixels in (("slide.tif", picture), ("condition.tif", ids)):

            def read(box: PixelBox[int], pixels=pixels) -> np.ndarray:
                return pixels[box.top : box.bottom, box.left : box.right]

            drawn = PyramidPicture(read, (192, 256), 1.0)
            write_pyramid(folder / name, drawn, TiffFormat(compression="deflate"), scratch=root)
        write_polygons(folder / "polygons.geojson", [], ids[..., 0], ("left", "right"), (192, 256))
        (folder / "canvas.json").write_text(json.dumps(FACTS | facts))

    commit_part(root / "woven", "s", write)
    return root / "woven"


@pytest.fixture
def woven(tmp_path) -> Path:
    return make_woven(tmp_path, tissue_picture(256, 192))


def cut(woven: Path, config) -> tuple[pd.DataFrame, TileStore]:
    parts = woven.parent / "parts"
    cut_woven(WovenJob("s", woven, config, parts))
    store = TileStore(parts)
    return store.rows(), store


def test_labels_and_masks_are_those_that_the_slide_was_made_under(woven):
    rows, store = cut(woven, config_of("polygons"))
    assert set(rows["label"]) == {"left", "right"} and len(rows) == 12
    masks = {(r.x_level0_px, r.y_level0_px): mask for r, mask in zip(rows.itertuples(), store.read(rows, "mask"))}
    assert int((masks[0, 0] == 2).sum()) == 6 and (masks[128, 0] == 2).all()
    assert all(list(groups) == ["a"] for groups in rows["ancestors"])
    assert all(list(guidance) == SAMPLING["guidance"] for guidance in rows["guidance"])
    assert (rows[["scheduler", "steps", "precision", "window_layout"]] == ["ddim", 4, "fp32", "lattice"]).all(axis=None)
    assert rows.loc[rows["x_level0_px"] < 128, "caption"].str.startswith("H&E, ").all()


def test_a_tile_without_a_label_of_the_mask_has_the_fields(woven):
    rows, _ = cut(woven, config_of("slide", classes=("tumour", "stroma")))
    right = rows["x_level0_px"] >= 128
    assert set(rows.loc[right, "label"]) == {"tumour"} and set(rows.loc[~right, "label"]) == {"stroma"}
    assert set(rows.loc[right, "caption"]) == {"PINK"} and set(rows.loc[right, "rna"]) == {"k"}


def test_a_field_says_more_of_a_place_than_its_slide(tmp_path):
    rows, _ = cut(
        make_woven(tmp_path, tissue_picture(256, 192), label="stroma"), config_of("slide", ("tumour", "stroma"))
    )
    assert set(rows.loc[rows["x_level0_px"] >= 128, "label"]) == {"tumour"}, "it was made under the field's label"


def test_a_slide_without_tissue_gives_no_tiles_and_says_so(tmp_path, capsys):
    woven = make_woven(tmp_path, np.full((192, 256, 3), 245, np.uint8))
    config = config_of("slide").model_copy(update={"tissue": Tissue(mpp=8.0, min_fraction=0.5)})
    (woven / "lineage.json").write_text("{}")
    (tmp_path / "data").mkdir()
    woven.rename(tmp_path / "data/woven")
    study = study_of(Params(tile=config), tmp_path)
    metrics = run("tile_slides", study)
    assert metrics["tiles"] == 0 and list(metrics["without_tiles"]) == ["s"]
    assert "gives no tiles" in capsys.readouterr().err and stores_in([study.woven_tiles]) == []
