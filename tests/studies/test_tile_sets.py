"""Sets of tiles to a tile store, end to end in this process."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import histoloom.slides.tile_set_job as tile_set_job
from histoloom.data.commit import hash_tree
from histoloom.data.store import UNKNOWN, TileStore
from histoloom.errors import HistoloomError, ManifestFaults
from histoloom.slides.tile_set_job import part_ends
from histoloom.studies.named_files import files_of
from tests.build import make_study, tissue_picture, write_csv
from tests.stages import study_of
from tests.studies.tile_sets import FORMS, LABELS, MASKS, PX, Tiles, by_picture, encoded, params_of, take_up, write_set
from tests.studies.tiling import slide_row, slides_report


@pytest.mark.parametrize("form", FORMS)
def test_what_goes_in_comes_out(folder, form):
    tiles = Tiles()
    metrics = take_up(params_of(write_set(tiles, folder / "in", form), **MASKS))
    store = TileStore("data/tiles")
    rows = store.rows()
    assert metrics["tiles"] == len(rows) == len(tiles) and rows["tile_id"].is_unique and metrics["patients"] == 6
    found = by_picture(rows, store.read(rows))
    masks = dict(zip(rows["tile_id"], store.read(rows, "mask")))
    for image, mask, patient, label in zip(tiles.images, tiles.masks, tiles.patients, tiles.labels):
        row = found[image.tobytes()]
        assert (row["patient_id"], row["slide_id"], row["label"]) == (patient, patient, label)
        assert row["split_group"] == patient and row["masked"] and row["source"] == "real" and row["mpp"] == 1.0
        np.testing.assert_array_equal(masks[row["tile_id"]], mask)
    assert rows.groupby("split_group")["split"].nunique().max() == 1 and {*rows["split"]} == {"train", "val", "test"}


def test_all_forms_give_the_same_rows(folder):
    tiles, seen = Tiles(), []
    for form in FORMS:
        shutil.rmtree("data", ignore_errors=True)
        take_up(params_of(write_set(tiles, folder / form, form), **MASKS))
        store = TileStore("data/tiles")
        rows = store.rows()
        order = np.argsort([image.tobytes() for image in store.read(rows)])
        seen.append(rows.drop(columns=["tile_id", "part", "index"]).iloc[order].reset_index(drop=True))
    for other in seen[1:]:
        assert other.equals(seen[0])


def _images(**changes) -> Tiles:
    tiles = Tiles()
    vars(tiles).update(changes)
    return tiles


def test_pictures_are_cut_and_resampled_by_area(folder):
    large = np.stack([tissue_picture(2 * PX, 2 * PX, seed) for seed in range(24)])
    stated = write_set(_images(images=large, masks=np.zeros(large.shape[:3], np.uint8)), folder / "in", "npz")
    metrics = take_up(params_of(stated))
    store = TileStore("data/tiles")
    np.testing.assert_array_equal(store.read(store.rows()), large[:, PX // 2 : -PX // 2, PX // 2 : -PX // 2])
    assert metrics["sets"]["set"]["cut"] == 24 and metrics["sets"]["set"]["resampled"] == 0
    assert take_up(params_of(stated | {"mpp": 0.5}))["sets"]["set"]["resampled"] == 24
    store = TileStore("data/tiles")
    means = large.reshape(24, PX, 2, PX, 2, 3).mean((2, 4))
    assert np.abs(store.read(store.rows()) - means).max() <= 1  # Pillow rounds after each direction
    assert take_up(params_of(stated | {"larger": "grid"}))["tiles"] == 24 * 4
    store = TileStore("data/tiles")
    rows = store.rows()
    assert rows["tile_id"].is_unique and rows["tile_id"].iloc[1] == f"set_0_{PX}_0"
    np.testing.assert_array_equal(store.read(rows.iloc[[1]])[0], large[0, :PX, PX:])


def test_masks_follow_their_pictures(folder):
    large = np.stack([tissue_picture(2 * PX, 2 * PX, seed) for seed in range(24)])
    masks = np.kron(np.random.default_rng(0).integers(0, 2, (24, PX, PX)), np.ones((1, 2, 2))).astype(np.uint8) * 255
    stated = write_set(_images(images=large, masks=masks), folder / "in", "npz")
    with pytest.raises(HistoloomError, match="its mask holds 255, and there are 2 classes: state mask_values"):
        take_up(params_of(stated | {"mpp": 0.5}, **MASKS))
    take_up(params_of(stated | {"mpp": 0.5, "mask_values": {255: "clear"}}, **MASKS))
    store = TileStore("data/tiles")
    np.testing.assert_array_equal(store.read(store.rows(), "mask"), masks[:, ::2, ::2] // 255 * 2)


def test_volumes_lie_beside_their_pictures(folder):
    tiles, rng = Tiles(), np.random.default_rng(0)
    held = rng.integers(0, 256, (24, 6, PX, PX), dtype=np.uint8)
    arrays = {"images": tiles.images, "labels": np.array(tiles.labels), "patient_id": np.array(tiles.patients)}
    np.savez(folder / "in.npz", stacks=held, **arrays)
    stated = {"path": "in.npz", "mpp": 1.0, "columns": {"volume": "stacks"}}
    take_up(params_of(stated))
    store = TileStore("data/tiles")
    rows = store.rows()
    places = [int(name.rpartition("_")[2]) for name in rows["tile_id"]]
    np.testing.assert_array_equal(store.read(rows, "volume"), held[places])
    with pytest.raises(HistoloomError, match="a volume is neither cut nor brought to another scale"):
        take_up(params_of(stated, tile_px=PX // 2, stride_px=PX // 2))


def test_pictures_that_cannot_be_used_are_counted_and_said(folder):
    stated = write_set(Tiles(), folder / "in", "image_folder")
    pictures = sorted(Path("in/pictures").rglob("*.png"))
    pictures[0].write_bytes(pictures[0].read_bytes()[:60])
    pictures[1].write_bytes(b"no picture")
    Image.fromarray(np.zeros((PX, PX - 1, 3), np.uint8)).save(pictures[2])
    Image.fromarray(np.full((PX, PX), 40000, np.uint16)).save(pictures[3])
    half = np.full((PX, PX, 4), 128, np.uint8)
    Image.fromarray(half).save(pictures[4])
    with pytest.raises(
        HistoloomError, match=r"5 picture\(s\) of sets can't be used, and tile.max_bad_tiles allows 4"
    ) as error:
        take_up(params_of(stated, max_bad_tiles=4))
    for word in ("no picture that can be read", "31 x 32 px, and a tile needs 32", "of 16 bits", "half transparent"):
        assert word in str(error.value), word
    assert not Path("data/tiles").exists() and "5 picture(s) left out" in slides_report()["set"]["reason"]
    metrics = take_up(params_of(stated, max_bad_tiles=5))
    assert (metrics["tiles"], metrics["sets"]["set"]["bad"], metrics["made"]) == (19, 5, 0)


def test_a_set_of_which_nothing_is_left_is_refused(folder):
    stated = write_set(Tiles(), folder / "in", "npz")
    with pytest.raises(HistoloomError, match=r"24 picture\(s\) of sets can't be used, and tile.max_bad_tiles allows 0"):
        take_up(params_of(stated, tile_px=PX * 2, max_bad_tiles=99))
    budget = {"labels": LABELS | {"fraction": 1e-6}, "split": {"fractions": {"train": 1.0}}}
    with pytest.raises(HistoloomError, match="No tile is left"):
        take_up(params_of(stated, **budget))


def test_grey_and_glass_are_read_exactly(folder):
    stated = write_set(Tiles(), folder / "in", "image_folder")
    first, second = sorted(Path("in/pictures").rglob("*.png"))[:2]
    grey = np.arange(PX * PX, dtype=np.uint16).reshape(PX, PX).astype(np.uint8)
    Image.fromarray(grey).save(first)
    cut_out = np.dstack([Tiles().images[0], np.tile([0, 255], (PX, PX // 2)).astype(np.uint8)])
    Image.fromarray(cut_out).save(second)
    take_up(params_of(stated))
    store = TileStore("data/tiles")
    images = store.read(store.rows().iloc[:2])
    np.testing.assert_array_equal(images[0], np.dstack([grey] * 3))
    np.testing.assert_array_equal(images[1], np.where(cut_out[..., 3:] > 0, cut_out[..., :3], 255))


def test_a_png_of_16_bits_a_channel_is_not_cut_to_8(folder):
    import imagecodecs

    stated = write_set(Tiles(), folder / "in", "image_folder")
    path = min(Path("in/pictures").rglob("*.png"))
    path.write_bytes(imagecodecs.png_encode(np.full((PX, PX, 3), 300, np.uint16)))
    with pytest.raises(HistoloomError, match="of 16 bits: scale it to 8-bit RGB"):
        take_up(params_of(stated))


@pytest.mark.parametrize("ending", ["jpg", "webp", "tiff"])
def test_other_pictures_are_read(folder, ending):
    tiles = Tiles()
    Path("in").mkdir()
    for name, image in zip(tiles.names, tiles.images):
        Path(f"in/{name}.{ending}").write_bytes(encoded(image, {"jpg": "jpeg"}.get(ending, ending)))
    stated = {"path": "in", "mpp": 1.0, "patterns": {"patient_id": r"^(P\d)"}}
    take_up(params_of(stated, labels={"source": "none"}))
    store = TileStore("data/tiles")
    found = store.read(store.rows())
    wanted = np.stack([np.asarray(Image.open(f"in/{name}.{ending}").convert("RGB")) for name in tiles.names])
    np.testing.assert_array_equal(found, wanted)
    assert {*store.rows()["label"]} == {None}


def test_slides_and_sets_stand_in_one_study(slides):
    make_study(".", [slide_row(n, patient_id=f"other{n}") for n in range(3)])
    stated = write_set(Tiles(), slides / "in", "csv")
    metrics = take_up(params_of(stated, manifest="manifests/slides.csv"))
    store = TileStore("data/tiles")
    assert store.parts == ["s0", "s1", "s2", "set.0000"] and metrics["patients"] == 9 == metrics["slides"]
    assert list(slides_report()) == ["s0", "s1", "s2", "set"]
    assert take_up(params_of(stated, manifest="manifests/slides.csv"))["made"] == 0
    for number in range(3):
        (slides / f"data/slides/s{number}.svs").write_text("no slide")
    with pytest.raises(HistoloomError, match="3 of 3 slides can't be used"):
        take_up(params_of(stated, manifest="manifests/slides.csv", max_bad_slides=2))
    assert take_up(params_of(stated, manifest="manifests/slides.csv", max_bad_slides=3))["tiles"] == 24


def test_a_patient_of_slides_and_sets_is_in_one_split(slides):
    make_study(".", [slide_row(n, patient_id=f"P{n}") for n in range(3)])
    stated = write_set(Tiles(), slides / "in", "csv")
    take_up(params_of(stated, manifest="manifests/slides.csv"))
    rows = TileStore("data/tiles").rows()
    assert rows.groupby("patient_id")["split"].nunique().max() == 1 and rows["patient_id"].nunique() == 6
    write_csv("manifests/slides.csv", [slide_row(n, patient_id=f"P{n}", split="test") for n in range(3)])
    with pytest.raises(ManifestFaults, match=r"patient 'P0'.* a patient belongs to one split"):
        take_up(params_of(stated | {"values": {"split": "train"}}, manifest="manifests/slides.csv"))


def test_splits_of_folders_are_kept(folder):
    tiles = Tiles()
    for n, image in enumerate(tiles.images):
        split = ("train", "val", "test")[n // 8]
        place = Path("in", split, tiles.labels[n], f"{tiles.names[n]}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(encoded(image))
    stated = {"path": "in", "mpp": 1.0, "patterns": {"patient_id": r"/(P\d)_"}}
    take_up(params_of(stated))
    rows = TileStore("data/tiles").rows()
    assert rows.groupby("patient_id")["split"].first().tolist() == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    with pytest.raises(ManifestFaults, match="patient 'all' is in split 'train' and 'val' here and in 'test'"):
        take_up(params_of(stated | {"patterns": {}, "values": {"patient_id": "all"}}))


def test_a_tile_as_a_group_must_be_asked_for(folder):
    tiles = Tiles()
    np.savez(folder / "in.npz", images=tiles.images, labels=np.array(tiles.labels))
    stated = {"path": "in.npz", "mpp": 1.0}
    with pytest.raises(
        ManifestFaults, match=r"24 tile\(s\) state neither patient nor slide: '0', '1', '2' and 21 more"
    ):
        take_up(params_of(stated))
    metrics = take_up(params_of(stated | {"group_by": "tile"}))
    rows = TileStore("data/tiles").rows()
    assert rows["split_group"].is_unique and metrics["patients"] == 24 and metrics["slides"] == 0
    assert len(slides_report()) == 1
    with pytest.raises(ManifestFaults, match="group_by is tile, and it states patient_id"):
        take_up(params_of(write_set(tiles, folder / "other", "npz") | {"group_by": "tile"}))


@pytest.mark.long
def test_any_number_of_workers_makes_the_same_bytes(folder, monkeypatch):
    monkeypatch.setattr(tile_set_job, "PART_TILES", 8)
    params = params_of(write_set(Tiles(), folder / "in", "webdataset"), **MASKS)
    take_up(params)
    before = hash_tree(folder / "data/tiles")
    assert len(TileStore("data/tiles").parts) > 2
    shutil.rmtree(".work")
    take_up(params, workers=2)
    assert hash_tree(folder / "data/tiles") == before


def test_a_picture_more_remakes_few_parts(folder, monkeypatch):
    monkeypatch.setattr(tile_set_job, "PART_TILES", 64)
    assign = {"split": {"assign": {f"P{n}": "train" if n < 4 else "test" for n in range(6)}}}
    params = params_of(write_set(Tiles(640, 8), folder / "in", "image_folder"), tile_px=8, **assign)
    parts = take_up(params)["made"]
    assert parts > 9 and take_up(params)["made"] == 0
    more = Path("in/pictures/stroma/P0_050x.png")
    more.write_bytes(encoded(Tiles(1, 8, seed=5).images[0]))
    assert 1 <= take_up(params)["made"] <= 2
    assert len(TileStore("data/tiles").rows()) == 641
    shutil.copy(more, sorted(Path("in/pictures/tumour").iterdir())[0])
    assert take_up(params)["made"] == 1


@given(st.lists(st.text(), unique=True), st.integers(1, 40))
def test_parts_hold_all_names_in_order(names, most):
    ends = [*part_ends(names, most)]
    assert ends == sorted({*ends}) and (ends[-1:] or [0]) == [len(names)]
    assert all(1 <= b - a <= most for a, b in zip([0, *ends], ends))


@given(st.integers(0, 20_000))
def test_a_name_more_changes_few_parts(place):
    names = [f"tile{n}" for n in range(20_000)]
    before, after = (_parts(each) for each in (names, [*names[:place], "new", *names[place:]]))
    assert 1 <= len(after - before) <= 4


def _parts(names: list[str]) -> set[tuple[str, ...]]:
    ends = [*part_ends(names, 512)]
    return {tuple(names[a:b]) for a, b in zip([0, *ends], ends)}


def test_a_label_budget_hides_labels_of_tiles(folder):
    labels = {"labels": LABELS | {"fraction": 0.5, "unlabelled": "keep"}}
    stated = write_set(Tiles(96, 16), folder / "in", "npz")
    metrics = take_up(params_of(stated, tile_px=16, **labels, **MASKS))
    store = TileStore("data/tiles")
    rows = store.rows()
    hidden = rows["label"].isna()
    assert metrics["train_tiles_hidden"] == int(hidden[rows["split"] == "train"].sum()) > 5
    assert not hidden[rows["split"] == "test"].any() and (rows["masked"] == ~hidden).all()
    assert (store.read(rows[hidden], "mask") == UNKNOWN).all() and (store.read(rows[~hidden], "mask") < 3).all()
    assert take_up(params_of(stated, tile_px=16, labels=LABELS | {"fraction": 0.5}))["tiles"] == int((~hidden).sum())


def test_what_is_fitted_to_a_slide_is_fitted_to_a_slide_s_tiles(folder):
    tiles = Tiles(24, 64)
    stated = write_set(tiles, folder / "in", "npz")
    masks = {"source": "stain", "classes": ["nucleus", "clear"]}
    params = params_of(stated, tile_px=64, stain="macenko", masks=masks, caption="H&E, {measured}")
    metrics = take_up(params)
    store = TileStore("data/tiles")
    rows = store.rows()
    assert sum(metrics["sets"]["set"]["stain"].values()) == 6 and metrics["sets"]["set"]["stain"]["fitted"] > 2
    assert rows["masked"].all() and rows["caption"].str.contains("nuclei").all() and store.has("instance")
    assert 1 < np.abs(store.read(rows).astype(int) - tiles.images).mean() < 60


def test_hashes_cover_what_a_set_names(folder):
    stated = write_set(Tiles(), folder / "in", "csv")
    before = files_of(study_of(params_of(stated)), "tile")["tile"]["sets"]
    assert files_of(study_of(params_of(stated)), "tile")["tile"]["sets"] == before
    for place in ("pictures", "masks"):
        path = min(Path("in", place).rglob("*.png"))
        path.write_bytes(path.read_bytes() + b" ")
        after = files_of(study_of(params_of(stated)), "tile")["tile"]["sets"]
        assert after != before
        before = after


def test_a_large_set_is_few_files(folder):
    count, px = 5000, 8
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (count, px, px, 3), dtype=np.uint8)
    np.savez(folder / "in.npz", images=images, slide_id=np.array([f"s{n // 100}" for n in range(count)]))
    metrics = take_up(params_of({"path": "in.npz", "mpp": 1.0}, tile_px=px, labels={"source": "none"}))
    files = [path for path in Path("data/tiles").rglob("*") if path.is_file()]
    assert metrics["tiles"] == count and len(files) < 500 * count / 100_000
    store = TileStore("data/tiles")
    np.testing.assert_array_equal(store.read(store.rows()), images)
