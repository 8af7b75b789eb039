"""The score of pictures against real tiles, beside its floor."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import histoloom
from histoloom.errors import HistoloomError
from tests.build import make_part, tile_rows, tissue_picture

pytestmark = pytest.mark.long


def tissue(count: int, seed: int, strength: float = 1.0) -> np.ndarray:
    return np.stack([tissue_picture(32, 32, seed=seed + n, strength=strength) for n in range(count)])


@pytest.fixture(scope="module")
def real() -> np.ndarray:
    return tissue(104, 0)


def test_pictures_of_the_same_kind_score_near_the_floor_and_others_far_above_it(real):
    same, other = (histoloom.score(tissue(52, 500, of), real) for of in (1.0, 0.3))
    assert same["extractor"]["name"] == "efficientnet-lite2" and same["n"] == {"images": 52, "against": 104}
    assert same["kid_floor"] == other["kid_floor"], "the floor is of the real tiles alone"
    assert abs(same["kid"]["mean"] - same["kid_floor"]["mean"]) < 0.2 * other["kid"]["mean"]
    low, high = other["kid_interval"]["interval"]
    assert 0 < low < other["kid_interval"]["value"] < high
    assert other["realism"]["auc"] > 0.95 > 0.7 > other["realism_floor"]["auc"]


def test_a_store_s_held_out_tiles_are_the_reference_and_halves_share_no_patient(real, tmp_path):
    names = [f"p{n % 12}" for n in range(104)]
    split = ["train"] * 24 + ["test"] * 80
    rows = tile_rows(104, split=split, split_group=names, patient_id=names)
    make_part(tmp_path / "store", "slide", rows, real)
    store = histoloom.open_store(tmp_path / "store")
    images = [Image.fromarray(tile) for tile in tissue(24, 500)]
    found = histoloom.score(images, store)
    assert found["n"] == {"images": 24, "against": 80} and found["kid_interval"] == {}
    assert found["realism"] == {"n": {"real": 80, "other": 24}}
    assert histoloom.score(images, store, rows=store.rows(split="train"))["n"]["against"] == 24
    with pytest.raises(HistoloomError, match="no held-out tile"):
        histoloom.score(images, store, rows=store.rows(split="val"))


@pytest.mark.parametrize(
    "images, said",
    [
        (np.zeros((5, 8, 8, 3), np.uint8), "images holds 5 tiles"),
        (np.zeros((30, 8, 8, 3)), "images is float64"),
        ([], "images holds 0 tiles"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((9, 8, 3), np.uint8)], "Give tiles of one size"),
    ],
)
def test_what_can_t_be_scored_is_an_error(real, images, said):
    with pytest.raises(HistoloomError, match=said):
        histoloom.score(images, real)
