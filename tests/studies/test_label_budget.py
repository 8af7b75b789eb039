"""What is hidden of the labels is in no tile, and in no mask."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from histoloom.data.splits import chance
from histoloom.data.store import UNKNOWN, TileStore
from histoloom.errors import HistoloomError
from tests.build import box_ring, feature, write_geojson
from tests.studies.tiling import ROWS, SIDE, slide_row, study, tile_slides

OVERLAPPING = {
    "tile_px": 32,
    "stride_px": 16,
    "labels": {"source": "slide", "classes": ["tumour"]},
    "caption": "{label}",
}


def test_a_label_fraction_hides_the_labels_of_the_other_train_tiles_and_no_test_tile_s(slides):
    def cut(**labels):
        splits = [ROWS[0] | {"split": "train"}, ROWS[1] | {"split": "val"}, ROWS[2] | {"split": "test"}]
        tile = OVERLAPPING | {"labels": OVERLAPPING["labels"] | labels}
        return tile_slides(study(splits, tile).tile), TileStore("data/tiles").rows().set_index("tile_id")

    whole, kept = cut()[1], {}
    for fraction in (0.3, 0.7):
        metrics, rows = cut(fraction=fraction, unlabelled="keep")
        kept[fraction] = rows[rows["label"].notna()]
        train = rows[rows["split"] == "train"]
        assert rows.index.equals(whole.index) and (rows["caption"][rows["label"].isna()] == "unlabelled").all()
        assert metrics["train_tiles_hidden"] == train["label"].isna().sum() and metrics["label_fraction"] == fraction
        assert 0 < train["label"].notna().mean() < fraction + 0.1
        assert rows[rows["split"] == "test"]["label"].notna().all()
    assert set(kept[0.3].index) < set(kept[0.7].index)
    assert set(cut(fraction=0.3)[1].index) == set(kept[0.3].index)


@pytest.mark.parametrize("source", ["polygons", "raster"])
def test_no_pixel_of_a_hidden_mask_is_in_the_store(slides, source):
    """Of overlapping tiles at two scales, none that is seen reaches into a square that is hidden."""
    write_geojson("manifests/annotations/a.geojson", feature("tumour", box_ring(0, 0, SIDE, SIDE)))
    Image.fromarray(np.ones((SIDE, SIDE), np.uint8)).save("data/slides/m.png")
    rows = [slide_row(n, annotations="a.geojson", mask="m.png", split="train" if n else "test") for n in range(3)]
    labels = {"source": source, "classes": ["tumour"], "fraction": 0.4}
    tile = OVERLAPPING | {"labels": labels, "masks": {"source": source, "classes": ["tumour"]}, "more_mpp": [2.0]}
    metrics = tile_slides(study(rows, tile).tile)
    found = TileStore("data/tiles").rows()
    train = found[found["split"] == "train"]
    assert metrics["train_tiles_hidden"] > 0 and set(found["mpp"]) == {1.0, 2.0}
    square, shown = 2 * 32 * 2, set()
    for row in train.itertuples():
        far = 32 * row.mpp - 1e-3
        corners = [(row.x_level0_px + dx, row.y_level0_px + dy) for dx in (0, far) for dy in (0, far)]
        shown |= {(row.slide_id, int(x // square), int(y // square)) for x, y in corners}
    assert 0 < len(shown) < 2 * (SIDE // square) ** 2
    for slide, x, y in shown:
        assert chance(f"{slide}/train/{x}/{y}", 0) < 0.4


def test_a_label_fraction_of_patients_leaves_whole_slides_out(slides):
    rows = [slide_row(n, split="test" if n == 3 else "train") for n in range(4)]
    labels = {"source": "slide", "classes": ["tumour"], "fraction": 0.4, "fraction_of": "patient"}
    metrics = tile_slides(study(rows, {"labels": labels}).tile)
    assert metrics["slides"] == 3 and metrics["quarantined"] == 0  # two of three train slides, and the test slide
    assert "s3" in TileStore("data/tiles").parts and metrics["train_tiles_hidden"] > 0


def test_a_test_slide_without_labels_is_a_bad_slide_whatever_is_hidden(slides):
    write_geojson("manifests/annotations/a.geojson", feature("tumour", box_ring(0, 0, SIDE, SIDE)))
    write_geojson("manifests/annotations/b.geojson", feature("tumour", box_ring(0, 0, 8, 8)))
    rows = [
        slide_row(n, annotations="a.geojson" if n else "b.geojson", split="train" if n else "test") for n in range(3)
    ]
    labels = {"source": "polygons", "classes": ["tumour"], "fraction": 0.5, "fraction_of": "patient"}
    with pytest.raises(HistoloomError, match="none has a label"):
        tile_slides(study(rows, {"labels": labels}).tile)


@pytest.mark.parametrize("source", ["raster", "stain"])
def test_a_tile_that_is_kept_shows_nothing_of_a_hidden_mask(slides, source):
    """What was traced is unknown there, with its nuclei; what stain tells is nobody's label, and stays."""
    ids = np.ones((SIDE, SIDE), np.uint8)
    Image.fromarray(ids).save("data/slides/m.png")
    Image.fromarray(np.arange(1, SIDE * SIDE + 1, dtype=np.int32).reshape(SIDE, SIDE)).save("data/slides/i.tif")
    rows = [slide_row(n, mask="m.png", instances="i.tif", split="train" if n else "test") for n in range(3)]
    labels = {"source": "slide", "classes": ["tumour"], "fraction": 0.4, "unlabelled": "keep"}
    metrics = tile_slides(study(rows, {"labels": labels, "masks": {"source": source, "classes": ["nucleus"]}}).tile)
    store = TileStore("data/tiles")
    found = store.rows()
    masks, instances, edges = (store.read(found, name) for name in ("mask", "instance", "edge"))
    if source == "stain":
        assert found["masked"].all() and (masks < 2).all() and metrics["train_tiles_hidden"] > 0
        return
    known = found["masked"].to_numpy()
    assert metrics["train_tiles_hidden"] == (~known).sum() > 0 and known[found["split"] == "test"].all()
    assert (masks[known] == 1).all() and (masks[~known] == UNKNOWN).all() and known[found["split"] == "train"].any()
    assert (instances[known] > 0).all() and not instances[~known].any() and not edges[~known].any()
