"""Slides to a tile store, end to end in this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from histoloom.data.commit import hash_tree
from histoloom.data.pixel_box import PixelBox
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError, ManifestFaults
from histoloom.slides.open import open_slide
from tests.build import (
    box_ring,
    feature,
    make_slide,
    tissue_picture,
    write_geojson,
)
from tests.studies.tiling import POLYGONS, ROWS, SIDE, slide_row, slides_report, study, tile_slides


def test_a_tile_says_which_public_set_its_slide_is_of(slides):
    tile_slides(study([slide_row(0, dataset="camelyon16"), slide_row(1, dataset=" own "), slide_row(2)]).tile)
    stated = TileStore("data/tiles").rows().groupby("slide_id")["dataset"].agg(lambda names: names.iloc[0])
    assert stated.to_dict() == {"s0": "camelyon16", "s1": "own", "s2": None}


def test_tiles_are_the_slide_s_pixels_at_their_places(slides):
    metrics = tile_slides(study(ROWS).tile)
    store = TileStore("data/tiles")
    rows, images = store.rows(), store.read(store.rows())
    assert metrics["slides"] == metrics["slides_made"] == metrics["patients"] == 3
    assert metrics["tiles"] == len(rows) > 30 and rows["tile_id"].is_unique
    assert {s: sum(c.values()) for s, c in metrics["tiles_by_split"].items()} == rows["split"].value_counts().to_dict()
    assert rows.groupby("split_group")["split"].nunique().max() == 1
    assert set(rows["label"]) == {"tumour"} and (rows["tissue_fraction"] >= 0.4).all()
    for (_, row), image in zip(rows.iterrows(), images):
        if row["slide_id"] == "s1":
            picture = tissue_picture(SIDE, SIDE, 1)
            x, y = row["x_level0_px"], row["y_level0_px"]
            np.testing.assert_array_equal(image, picture[y : y + 64, x : x + 64])
    with Image.open("data/tiles/s0/thumbnail.jpg") as thumbnail:
        assert max(thumbnail.size) == SIDE  # never larger than the slide


@pytest.mark.parametrize("mpp, downsample", [(2.0, 2.0), (1.5, 1.5), (1.0, 1.0)])
def test_a_coarser_target_shows_the_same_tissue(slides, mpp, downsample):
    tile_slides(study(ROWS[:2], {"mpp": mpp, "tile_px": 32, "stride_px": 48}).tile)
    store = TileStore("data/tiles")
    rows = store.rows()
    mine = rows[rows["slide_id"] == "s0"]
    assert set(rows["mpp"]) == {mpp}
    with open_slide(slides / "data/slides/s0.svs") as slide:
        for (_, row), image in zip(mine.iterrows(), store.read(mine)):
            box = PixelBox(row["x_level0_px"], row["y_level0_px"], 32 * downsample, 32 * downsample)
            alone = slide.read(box, downsample)
            assert np.abs(alone.astype(int) - image).mean() < 12
    edge = 32 * downsample
    assert (rows[["x_level0_px", "y_level0_px"]].max() + edge <= SIDE).all()


def _spoil(path, kind: str) -> None:
    if kind == "text":
        path.write_text("no slide")
    elif kind == "half":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "blank":
        make_slide(path, picture=np.full((SIDE, SIDE, 3), 250, np.uint8))
    elif kind == "coarse":
        make_slide(path, width=SIDE, height=SIDE, mpp=2.0)
    elif kind == "no scale":
        make_slide(path, width=SIDE, height=SIDE, mpp=None)


@pytest.mark.parametrize(
    "kind, reason",
    [
        ("text", "neither a slide"),
        ("half", "s1.svs"),
        ("blank", "no tile has tissue enough. There is nothing but glass"),
        ("coarse", "is finer than the slide's 2.000"),
        ("no scale", "doesn't tell its scale"),
    ],
)
def test_a_bad_slide_is_quarantined_within_the_budget_and_fails_past_it(slides, kind, reason):
    _spoil(slides / "data/slides/s1.svs", kind)
    with pytest.raises(
        HistoloomError, match=r"1 of 3 slides can't be used.*\n.*manifests/slides.csv, row 3: "
    ) as error:
        tile_slides(study(ROWS, {"max_bad_slides": 0}).tile)
    assert reason in str(error.value) and not (slides / "data/tiles").exists()
    assert reason in slides_report()["s1"]["reason"]
    metrics = tile_slides(study(ROWS, {"max_bad_slides": 1}).tile)
    assert (metrics["slides"], metrics["quarantined"], metrics["slides_made"]) == (2, 1, 0)
    assert TileStore("data/tiles").parts == ["s0", "s2"]
    assert [bool(row["reason"]) for row in slides_report().values()] == [False, True, False]


def test_upsampling_is_done_where_it_is_asked_for(slides):
    metrics = tile_slides(study(ROWS[:2], {"mpp": 0.8, "upsample": True}).tile)
    assert metrics["slides"] == 2 and set(TileStore("data/tiles").rows()["mpp"]) == {0.8}


def test_no_good_slide_is_an_error_whatever_the_budget(slides):
    for number in range(2):
        _spoil(slides / f"data/slides/s{number}.svs", "text")
    with pytest.raises(HistoloomError, match="2 of 2 slides"):
        tile_slides(study(ROWS[:2], {"max_bad_slides": 9}).tile)


def _hashes() -> dict[str, str]:
    return {part: hash_tree(TileStore("data/tiles").folder / part) for part in TileStore("data/tiles").parts}


ASSIGN = {"split": {"assign": {"p0": "train", "p1": "val", "p2": "test"}}}


def test_one_slide_more_is_one_slide_s_work(slides):
    tile_slides(study(ROWS, ASSIGN).tile)
    before = _hashes()
    assert tile_slides(study(ROWS, ASSIGN).tile)["slides_made"] == 0
    assert tile_slides(study([slide_row(3), *ROWS], ASSIGN).tile)["slides_made"] == 1
    after = _hashes()
    assert after.keys() == {"s0", "s1", "s2", "s3"} and before.items() <= after.items()
    assert tile_slides(study(ROWS[:2], {"split": {"assign": {"p0": "train", "p1": "val"}}}).tile)["slides_made"] == 0
    assert _hashes() == {name: before[name] for name in ("s0", "s1")}


@pytest.mark.parametrize(
    "row, tile",
    [
        ({"label": "stroma"}, {}),
        ({"caption": "other"}, {"caption": "{caption}"}),
        ({"patient_id": "p9"}, {"split": {"assign": {"p0": "train", "p9": "val", "p2": "test"}}}),
        ({"mpp": 0.9}, {}),
    ],
    ids=["label", "caption", "patient", "mpp"],
)
def test_what_is_stated_anew_of_a_slide_redoes_that_slide(slides, row, tile):
    rows = [{"caption": "a report"} | row for row in ROWS]
    tile_slides(study(rows, {"caption": "{caption}"} | ASSIGN).tile)
    changed = study(
        [rows[0], {"caption": "a report"} | slide_row(1, **row), rows[2]], {"caption": "{caption}"} | ASSIGN | tile
    )
    assert tile_slides(changed.tile)["slides_made"] == 1


def test_the_largest_slide_is_cut_first_and_the_order_of_slides_is_kept(slides):
    with Path("data/slides/s1.svs").open("ab") as stream:
        stream.write(bytes(10**6))
    tile_slides(study(ROWS).tile)
    made = sorted(
        Path(".work/tile/shared/parts").iterdir(), key=lambda part: (part / "rows.parquet").stat().st_mtime_ns
    )
    assert [part.name[:2] for part in made] == ["s1", *sorted(("s0", "s2"), key=lambda name: -_bytes(name))]
    assert list(slides_report()) == ["s0", "s1", "s2"]


def _bytes(name: str) -> int:
    return Path(f"data/slides/{name}.svs").stat().st_size


def test_any_number_of_workers_makes_the_same_bytes(slides):
    config = study(ROWS, ASSIGN).tile
    tile_slides(config)
    before = hash_tree(slides / "data/tiles")
    shutil.rmtree(".work")
    tile_slides(config, workers=2)
    assert hash_tree(slides / "data/tiles") == before


def test_what_no_tile_shows_is_counted_and_shifted_tiles_show_it(slides, capsys):
    picture = tissue_picture(3 * SIDE, 3 * SIDE, 5)[SIDE // 2 : SIDE // 2 + 220, SIDE // 2 : SIDE // 2 + 200]
    make_slide(slides / "data/slides/s2.svs", picture=picture)
    metrics = tile_slides(study(ROWS).tile)
    cut_off = 1 - 192 * 192 / (200 * 220)
    assert float(slides_report()["s2"]["tissue_beyond_grid"]) == pytest.approx(cut_off, abs=0.03)
    assert 0 < metrics["tissue_left_out"]["tissue_beyond_grid"] < cut_off
    assert "tile.edge: shift takes it. 1 slide(s): s2 (1" in capsys.readouterr().err
    store = TileStore("data/tiles")
    plain = dict(zip(store.rows()["tile_id"], store.read(store.rows())))
    metrics = tile_slides(study(ROWS, {"edge": "shift"}).tile)
    rows = store.rows()
    shifted = dict(zip(rows["tile_id"], store.read(rows)))
    assert rows["tile_id"].is_unique and metrics["tissue_left_out"]["tissue_beyond_grid"] == 0
    assert all((shifted[name] == tile).all() for name, tile in plain.items())
    mine = rows[rows["slide_id"] == "s2"]
    assert (mine["x_level0_px"].max(), mine["y_level0_px"].max(), len(mine)) == (200 - 64, 220 - 64, 16)
    for (_, row), tile in zip(mine.iterrows(), store.read(mine)):
        x, y = row["x_level0_px"], row["y_level0_px"]
        np.testing.assert_array_equal(tile, picture[y : y + 64, x : x + 64])


def test_padding_and_pen_give_no_tiles_and_are_counted(slides, capsys):
    plain = tissue_picture(SIDE, SIDE, 1)
    marked = plain.copy()
    marked[:, 320:], marked[16:368, 64:128] = 0, (10, 110, 60)
    make_slide(slides / "data/slides/s1.svs", picture=marked)
    metrics = tile_slides(study(ROWS).tile)
    rows = TileStore("data/tiles").rows()
    mine, facts = rows[rows["slide_id"] == "s1"], slides_report()["s1"]
    assert not mine["x_level0_px"].isin([64, 320]).any() and len(mine) > 7
    assert float(facts["padding_fraction"]) == pytest.approx(1 / 6, abs=0.03)
    assert float(facts["pen_fraction"]) == pytest.approx(352 * 64 / SIDE**2, abs=0.05)
    assert "tile.tissue.leave_out: [padding] keeps it" in capsys.readouterr().err
    assert metrics["tissue_left_out"]["slides_with_padding"] == metrics["tissue_left_out"]["slides_with_pen"] == 1


@pytest.mark.parametrize("kept", ["keep", "drop"])
def test_tiles_out_of_focus_are_counted_and_dropped_where_that_is_asked_for(slides, kept, capsys):
    picture = tissue_picture(SIDE, SIDE, 1)
    picture[:, :192] = gaussian_filter(picture, (4, 4, 0))[:, :192]
    make_slide(slides / "data/slides/s1.svs", picture=picture)
    metrics = tile_slides(study(ROWS, {"tissue": {"out_of_focus": kept}}).tile)
    rows = TileStore("data/tiles").rows()
    left = rows[(rows["slide_id"] == "s1") & (rows["x_level0_px"] < 192)]
    facts = slides_report()["s1"]
    assert (len(left) == 0) == (kept == "drop") and metrics["tissue_left_out"]["tiles_out_of_focus"] > 8
    assert int(facts["tiles"]) == int(facts["with_tissue"]) - (kept == "drop") * int(facts["out_of_focus"])
    assert "Many tiles are out of focus" in capsys.readouterr().err


def test_a_slide_wholly_out_of_focus_is_a_bad_slide_where_such_tiles_are_dropped(slides):
    blurred = gaussian_filter(tissue_picture(SIDE, SIDE, 1), (5, 5, 0))
    make_slide(slides / "data/slides/s1.svs", picture=blurred)
    with pytest.raises(HistoloomError, match=r"are out of focus.*Lower tile.tissue.min_sharpness"):
        tile_slides(study(ROWS, {"tissue": {"out_of_focus": "drop"}}).tile)


def test_regions_of_one_patient_keep_their_gap(slides):
    gap = 24.0
    split = {"group": "region", "region": {"rows": 2, "cols": 3, "gap_um": gap}}
    tile_slides(study(ROWS[:1], {"tile_px": 32, "stride_px": 8, "split": split}).tile)
    rows = TileStore("data/tiles").rows()
    assert set(rows["split"]) == {"train", "val", "test"}
    assert rows.groupby("split_group")["split"].nunique().max() == 1
    corner = rows[["x_level0_px", "y_level0_px"]].to_numpy()
    group = rows["split_group"].to_numpy()
    apart = np.abs(corner[:, None] - corner[None]).max(-1) - 32
    assert apart[group[:, None] != group[None]].min() >= gap


def test_an_assigned_group_that_is_not_there_and_a_bad_annotation_stop_before_any_work(slides):
    with pytest.raises(ManifestFaults, match="assign names 'p9'"):
        tile_slides(study(ROWS, {"split": {"assign": {"p9": "test"}}}).tile)
    write_geojson("manifests/annotations/a.geojson", feature("tumor", box_ring(0, 0, 9, 9)))
    with pytest.raises(ManifestFaults, match="did you mean 'tumour'"):
        tile_slides(study([slide_row(n, annotations="a.geojson") for n in range(2)], POLYGONS).tile)
    assert not list((slides / ".work/tile/shared/parts").iterdir())


@pytest.mark.parametrize("kind", ["macenko", "reinhard"])
def test_stain_is_fitted_once_a_slide_and_said(slides, kind):
    tile_slides(study(ROWS, {"stain": kind}).tile)
    assert {row["stain"] for row in slides_report().values()} == {"fitted"}
    store = TileStore("data/tiles")
    first = store.rows().iloc[0]
    with open_slide(slides / f"data/slides/{first['slide_id']}.svs") as slide:
        original = slide.read(PixelBox(first["x_level0_px"], first["y_level0_px"], 64, 64), 1.0)
    assert 2 < np.abs(store.read(store.rows().iloc[:1])[0].astype(int) - original).mean() < 60
