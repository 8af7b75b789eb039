"""Pictures of a set to a part: what goes in comes out, in any order, and what can't be read exactly is refused."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from histoloom.data.commit import sha256_file
from histoloom.data.manifest import check_manifest
from histoloom.data.store import TileStore
from histoloom.errors import faults_among
from histoloom.slides.tile_picture import BadPicture, as_ids, as_rgb, size_of
from histoloom.slides.tile_set_job import Planned, set_jobs
from histoloom.slides.tile_set_part import make_set_part, tiles_a_shard
from tests.build import write_csv
from tests.studies.tile_sets import CLASSES, FORMS, Tiles, encoded, params_of, write_set


def made_of(stated: dict, parts: Path, **tile) -> tuple[pd.DataFrame, np.ndarray]:
    """Rows and pictures of a set whose groups are all in train."""
    config = params_of(stated, **tile).tile
    manifest, found = check_manifest(config)
    assert not faults_among(found)
    splits = dict.fromkeys({slide.patient_id for slide in manifest.stated}, "train")
    planned = Planned(config, splits, {}, lambda paths: [sha256_file(path) for path in paths], parts, "code", 0)
    for job in set_jobs(manifest.sets[0], planned):
        make_set_part(job)
    store = TileStore(parts)
    return store.rows(), store.read(store.rows())


@settings(max_examples=12)
@given(st.data())
def test_what_goes_in_comes_out_whatever_the_form_and_the_order(data):
    px = 8 * data.draw(st.integers(1, 5), "px")
    count = data.draw(st.integers(2, 20), "count")
    draw = np.random.default_rng(data.draw(st.integers(0, 99), "seed"))
    tiles = Tiles(count, px)
    tiles.images = draw.integers(0, 256, tiles.images.shape, dtype=np.uint8)
    tiles.patients = [f"P{n}" for n in (0, 1, *draw.integers(0, 4, count - 2))]
    tiles.labels = [CLASSES[n] for n in draw.integers(0, 2, count)]
    tiles.names = [f"{patient}_{n:03d}" for n, patient in enumerate(tiles.patients)]
    with tempfile.TemporaryDirectory() as folder:
        form = data.draw(st.sampled_from(FORMS), "form")
        rows, images = made_of(write_set(tiles, Path(folder) / "in", form), Path(folder) / "parts", tile_px=px)
        known = {image.tobytes(): n for n, image in enumerate(tiles.images)}
        order = [known[image.tobytes()] for image in images]
        assert sorted(order) == list(range(count))
        assert rows["patient_id"].tolist() == [tiles.patients[n] for n in order]
        assert rows["label"].tolist() == [tiles.labels[n] for n in order]
        assert rows.notna()[["tile_id", "split_group", "split", "caption", "tissue_fraction"]].all(axis=None)


def test_the_order_of_a_table_changes_no_tile(tmp_path):
    stated = write_set(Tiles(), tmp_path / "in", "csv")
    table = pd.read_csv(tmp_path / "in/tiles.csv")
    first = _by_id(*made_of(stated, tmp_path / "one"))
    write_csv(tmp_path / "in/tiles.csv", table.iloc[::-1].to_dict("records"))
    second = _by_id(*made_of(stated, tmp_path / "two"))
    assert first == second and len(first) == 24


def _by_id(rows: pd.DataFrame, images: np.ndarray) -> dict[str, tuple]:
    columns = ["patient_id", "slide_id", "label", "caption", "tissue_fraction"]
    return {row.tile_id: (image.tobytes(), *row[columns]) for (_, row), image in zip(rows.iterrows(), images)}


def test_a_set_is_cut_at_each_of_its_scales(tmp_path):
    tiles = Tiles(6, 32)
    stated = write_set(tiles, tmp_path / "in", "npz") | {"scales": [1.0, 2.0]}
    rows, images = made_of(stated, tmp_path / "parts", tile_px=16)
    assert rows["mpp"].value_counts().to_dict() == {1.0: 6, 2.0: 6}
    first, second = (rows[rows["mpp"] == mpp] for mpp in (1.0, 2.0))
    assert {f"{name}_2" for name in first["tile_id"]} == {*second["tile_id"]}
    whole = dict(zip(rows["tile_id"], images))
    middles = tiles.images[:, 8:24, 8:24]
    for name, middle in zip(sorted(first["tile_id"]), middles):
        assert (whole[name] == middle).all()
    halved = tiles.images.reshape(6, 16, 2, 16, 2, 3).mean((2, 4))
    for name, half in zip(sorted(second["tile_id"]), halved):
        assert np.abs(whole[name] - half).max() <= 1
    alone, _ = made_of(
        {key: stated[key] for key in stated if key != "scales"}, tmp_path / "alone", tile_px=16, more_mpp=[2.0]
    )
    assert sorted(alone["tile_id"]) == sorted(rows["tile_id"])


def test_drawn_masks_take_the_place_of_the_stains(tmp_path):
    tiles = Tiles(6, 64)
    drawn = np.zeros((6, 64, 64), np.uint8)
    drawn[:, 8:24, 8:24] = drawn[:, 40:56, 8:24] = 7
    tiles.masks = drawn
    stated = write_set(tiles, tmp_path / "in", "npz")
    both = {"masks": {"source": "stain", "classes": ["nucleus", "clear"]}}
    rows, _ = made_of(stated | {"mask_values": {7: "nucleus"}}, tmp_path / "drawn", tile_px=64, **both)
    store = TileStore(tmp_path / "drawn")
    arrays = {name: store.read(rows, name) for name in ("mask", "instance")}
    assert rows["masked"].all() and ((arrays["mask"] == 1) == (drawn == 7)).all()
    assert [len(np.unique(numbers)) for numbers in arrays["instance"]] == [3] * 6


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_ids_of_few_bits_are_read_as_they_are(bits):
    ids = (np.arange(64).reshape(8, 8) % 2**bits).astype(np.uint8)
    stream = io.BytesIO()
    picture = Image.fromarray(ids, "L") if bits > 1 else Image.fromarray(ids.astype(bool))
    if bits > 1:
        picture = picture.convert("P")
    picture.save(stream, "PNG", bits=bits)
    np.testing.assert_array_equal(as_ids(stream.getvalue()), ids)


@pytest.mark.parametrize(
    "stored, words",
    [
        (b"", "it is empty"),
        (b"GIF89a no", "no picture that can be read"),
        (encoded(np.zeros((4, 4, 3), np.uint8), "gif"), "it is GIF"),
        (encoded(Tiles(1).images[0], "jpeg")[:-200], "breaks off or is damaged"),
        (encoded(Tiles(1).images[0], "png")[:200], "breaks off or is damaged"),
        (np.full((4, 4, 4), 7, np.uint8), "half transparent"),
    ],
)
def test_what_is_no_exact_picture_is_refused(stored, words):
    with pytest.raises(BadPicture, match=words):
        as_rgb(stored)


@pytest.mark.parametrize("form", ["jpeg", "webp", "gif"])
def test_masks_that_lose_are_refused(form):
    with pytest.raises(BadPicture, match="save it as PNG with one channel"):
        as_ids(encoded(np.zeros((4, 4), np.uint8), form))
    with pytest.raises(BadPicture, match="of mode RGB"):
        as_ids(encoded(np.zeros((4, 4, 3), np.uint8)))


@pytest.mark.parametrize(
    "options, words",
    [
        ({"photometric": "miniswhite"}, "inverted grey"),
        ({"compression": "jpeg", "photometric": "minisblack"}, "compression loses"),
    ],
)
def test_masks_in_tiffs_that_change_ids_are_refused(options, words):
    ids, stream = np.arange(256, dtype=np.uint8).reshape(16, 16), io.BytesIO()
    tifffile.imwrite(stream, ids, **options)
    with pytest.raises(BadPicture, match=words):
        as_ids(stream.getvalue())
    plain = io.BytesIO()
    tifffile.imwrite(plain, ids.astype(np.uint16) * 9, compression="zlib", photometric="minisblack")
    np.testing.assert_array_equal(as_ids(plain.getvalue()), ids.astype(np.uint16) * 9)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "tiff"])
def test_damaged_pictures_are_read_or_refused(form):
    draw, whole = np.random.default_rng(0), encoded(Tiles(1).images[0], form)
    for _ in range(200):
        damaged = bytearray(whole)
        for place in draw.integers(0, len(whole), draw.integers(1, 6)):
            damaged[place] = draw.integers(0, 256)
        for read in (as_rgb, as_ids):
            try:
                assert read(bytes(damaged)).dtype.kind == "u"
            except BadPicture:
                continue


def test_a_size_is_read_off_the_header():
    assert size_of(encoded(np.zeros((4, 6, 3), np.uint8))) == (6, 4) == size_of(np.zeros((4, 6), np.uint8))


@pytest.mark.parametrize("px, tiles", [(8, 1024), (128, 1024), (256, 512), (512, 128), (4096, 128)])
def test_files_of_large_tiles_hold_few_of_them(px, tiles):
    assert tiles_a_shard(px) == tiles
