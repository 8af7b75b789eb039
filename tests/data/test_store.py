"""What a store was given, it gives back, in any order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from histoloom.data.commit import commit_part, hash_tree
from histoloom.data.rows import spread, train_rows, val_rows
from histoloom.data.seeds import item_seed
from histoloom.data.store import SHARD_TILES, TileStore, TileWriter, cut_arrays
from histoloom.errors import HistoloomError
from tests.build import make_part, tile_rows, tiles

SIZES = {"a": 3, "b": SHARD_TILES + 44, "c": 20}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Three parts, of which one has two shards; and all their tiles."""
    folder = tmp_path_factory.mktemp("store")
    images = [tiles(count, 4, seed) for seed, count in enumerate(SIZES.values())]
    for (name, count), part in zip(SIZES.items(), images):
        make_part(folder, name, tile_rows(count, slide_id=name), part)
    (folder / ".tmp-d-1234").mkdir()
    (folder / "not_a_part").mkdir()
    return TileStore(folder), np.concatenate(images)


def test_rows_tell_their_part_and_place(store):
    store, originals = store
    rows = store.rows()
    assert store.parts == list(SIZES)
    assert len(rows) == len(originals) == sum(SIZES.values())
    assert rows.groupby("part")["index"].apply(list).to_dict() == {n: list(range(c)) for n, c in SIZES.items()}
    assert (rows["part"] == rows["slide_id"]).all()


@given(st.lists(st.integers(0, sum(SIZES.values()) - 1), max_size=60))
def test_any_rows_in_any_order_read_as_written(store, chosen):
    store, originals = store
    np.testing.assert_array_equal(store.read(store.rows().iloc[chosen]), originals[chosen])


def test_batches_are_the_rows_in_pieces(store):
    store, originals = store
    pieces = list(store.batches(store.rows(), 100))
    assert [len(piece) for piece in pieces] == [100, 95]
    np.testing.assert_array_equal(np.concatenate(pieces), originals)


def test_masks_and_instances_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 255, (9, 8, 8), dtype=np.uint8)
    instances = rng.integers(-5, 1 << 30, (9, 8, 8), dtype=np.int32)
    images = tiles(9, 8)

    def write(folder):
        with TileWriter(folder, cut_arrays(8, ("image", "mask", "instance"))) as writer:
            for image, mask, instance in zip(images, masks, instances):
                writer.add(image=image, mask=mask, instance=instance)
        tile_rows(9).to_parquet(folder / "rows.parquet")

    commit_part(tmp_path, "p", write)
    store = TileStore(tmp_path)
    rows = store.rows().iloc[::-1]
    assert store.has("mask") and store.has("instance")
    for name, originals in (("image", images), ("mask", masks), ("instance", instances)):
        np.testing.assert_array_equal(store.read(rows, name), originals[::-1])


@pytest.mark.parametrize("count", [1, SHARD_TILES, SHARD_TILES + 3])
def test_shards_have_the_bytes_that_zarr_would_write(tmp_path, count):
    images = tiles(count, 4)
    with TileWriter(tmp_path / "ours", cut_arrays(4)) as writer:
        for image in images:
            writer.add(image=image)
    ours = zarr.open_group(tmp_path / "ours/images.zarr")["image"]
    theirs = zarr.create_group(tmp_path / "theirs/images.zarr").create_array(
        "image",
        data=images,
        chunks=ours.chunks,
        shards=ours.shards,
        compressors=ours.compressors,
    )
    np.testing.assert_array_equal(theirs[:], ours[:])
    assert hash_tree(tmp_path / "ours") == hash_tree(tmp_path / "theirs")


@pytest.mark.parametrize("count", [0, 2])
def test_no_tile_and_blank_tiles_read_as_written(tmp_path, count):
    make_part(tmp_path, "p", tile_rows(count), np.zeros((count, 4, 4, 3), np.uint8))
    store = TileStore(tmp_path)
    assert store.read(store.rows()).shape == (count, 4, 4, 3)
    assert not store.read(store.rows()).any()


@pytest.mark.parametrize("make", [False, True], ids=["missing", "without parts"])
def test_a_folder_that_is_no_store_says_so(tmp_path, make):
    folder = tmp_path / "tiles"
    if make:
        (folder / "part").mkdir(parents=True)
    with pytest.raises(HistoloomError, match=r"tiles.*dvc repro"):
        TileStore(folder)


@pytest.mark.parametrize("splits, measured", [(["train", "val", "test"], "val"), (["train", "test", "test"], "train")])
def test_training_reads_train_alone_and_measuring_never_test(tmp_path, splits, measured):
    make_part(tmp_path, "p", tile_rows(3, split=splits), tiles(3, 4))
    store = TileStore(tmp_path)
    assert set(train_rows(store)["split"]) == {"train"}
    assert set(val_rows(store)["split"]) == {measured}


def test_no_train_tile_is_an_error(tmp_path):
    make_part(tmp_path, "p", tile_rows(2, split="test"), tiles(2, 4))
    with pytest.raises(HistoloomError, match=r"no tile in the train split.*tile\.split"):
        train_rows(TileStore(tmp_path))


@given(st.integers(1, 200), st.integers(1, 50))
def test_spread_takes_first_and_last_and_no_more_than_asked(have, want):
    rows = tile_rows(have)
    shown = spread(rows, want)
    assert len(shown) == min(have, want) and shown.index.is_unique
    assert want == 1 or {0, have - 1} <= set(shown.index)


@given(st.integers(), st.text(max_size=20), st.integers(), st.text(max_size=20))
def test_an_item_s_seed_is_its_own(seed, item, other_seed, other_item):
    here, there = item_seed(seed, item), item_seed(other_seed, other_item)
    assert 0 <= here < 1 << 64
    assert (here == there) == (f"{seed}/{item}" == f"{other_seed}/{other_item}")


def test_item_seeds_do_not_change_between_versions():
    assert item_seed(0, "keratin-000000") == 17866501900277142146


def test_rows_are_read_by_column_and_by_split(tmp_path):
    for name, splits in (("a", ["train", "val"]), ("b", ["train", "test"])):
        make_part(str(tmp_path), name, tile_rows(2, split=splits), tiles(2))
    store = TileStore(tmp_path)
    every, train = store.rows(), store.rows(["tile_id"], "train")
    assert sorted(train) == ["index", "part", "split", "tile_id"] and list(train["part"]) == ["a", "b"]
    assert (train["tile_id"].to_numpy() == every[every["split"] == "train"]["tile_id"].to_numpy()).all()
    assert store.rows(split="nobody").empty


def test_columns_that_some_parts_lack_are_read_of_those_that_have_them(tmp_path):
    make_part(tmp_path, "new", tile_rows(2, dataset="camelyon16"), tiles(2, 4))
    make_part(tmp_path, "old", tile_rows(3), tiles(3, 4))
    path = tmp_path / "old/rows.parquet"
    pd.read_parquet(path).drop(columns="dataset").to_parquet(path)
    rows = TileStore(tmp_path).rows(["label"], optional=["dataset", "nobody_has_it"])
    assert [*rows] == ["label", "dataset", "part", "index"]
    assert rows["dataset"].isna().tolist() == [False, False, True, True, True]


def test_rows_are_completed_part_by_part(store):
    """With what they had kept, if it was changed, and whatever rows were left out."""
    store, _ = store
    every = store.rows()
    some = store.rows(["tile_id"]).iloc[3::7].assign(label="other")
    whole = pd.concat(store.whole(some))
    assert whole["part"].tolist() == some["part"].tolist() and (whole["label"] == "other").all()
    pd.testing.assert_frame_equal(
        whole.drop(columns="label")[[*every.drop(columns="label")]], every.iloc[3::7].drop(columns="label")
    )
    assert list(store.whole(some.head(0))) == []
