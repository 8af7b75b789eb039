"""Near-copies: whatever is done to a train tile it is found, and what is no copy is not taken for one."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from histoloom.config import Params
from histoloom.data.pixel_box import PixelBox
from histoloom.quality import copy_search
from histoloom.quality.copy_search import (
    build_index,
    copy_scores,
    grey_of,
    perceptual_hash,
    register,
    source_likeness,
    turned,
)
from histoloom.quality.filters.base import Tiles
from histoloom.quality.filters.near_copy import COPY_OF_SOURCE, SOURCE_LIKENESS, CopyFilter
from histoloom.quality.planted_copies import DISGUISES, IN_PLACE, cut, disguised
from tests.build import tissue_picture
from tests.quality.filtered_tiles import fitting_of

SIDE = 64


def _tiles(seed: int) -> tuple[np.ndarray, np.ndarray, list[tuple[int, int]]]:
    """A picture, tiles of its middle that share at most a quarter, and their corners."""
    picture = tissue_picture(512, 512, seed)
    places = [(y, x) for y in range(120, 340, 48) for x in range(120, 340, 48)]
    return picture, np.stack([picture[y : y + SIDE, x : x + SIDE] for y, x in places]), places


@pytest.fixture(scope="module")
def train():
    return _tiles(1)


@pytest.fixture(scope="module")
def index(train):
    return build_index(np.array([f"t{n}" for n in range(len(train[1]))]), [train[1]])


@pytest.fixture(scope="module")
def most_of_others(index) -> float:
    """The highest score of tiles that are no copies."""
    return copy_scores(_tiles(2)[1], index)[0].max()


@pytest.mark.parametrize("name", DISGUISES)
def test_a_disguised_tile_is_found_and_named(name, train, index, most_of_others):
    rng = np.random.default_rng(0)
    score, nearest = copy_scores(np.stack([DISGUISES[name](tile, rng) for tile in train[1]]), index)
    assert score.min() > most_of_others + 0.1 and (nearest == np.arange(len(nearest))).all()


@pytest.mark.parametrize(("shift", "scale"), [(True, False), (False, True), (True, True)])
def test_a_tile_shifted_or_scaled_and_disguised_is_found(shift, scale, train, index, most_of_others):
    rng = np.random.default_rng(0)
    picture, _, places = train
    boxes = [PixelBox(x, y, SIDE, SIDE) for y, x in places]
    copies = [disguised(cut(picture, box, rng, shift=shift, scale=scale), rng) for box in boxes]
    score = copy_scores(np.stack(copies), index)[0]
    assert (score > most_of_others).mean() >= 0.95


def test_an_exact_copy_scores_one_in_every_form(train, index):
    for form in turned(train[1]):
        score, nearest = copy_scores(form, index)
        assert np.allclose(score, 1, atol=1e-5) and (nearest == np.arange(len(nearest))).all()


def test_what_has_no_contrast_is_no_copy(index):
    blank = np.full((2, SIDE, SIDE, 3), 200, np.uint8)
    assert (copy_scores(blank, index)[0] <= 0).all()
    assert (copy_scores(blank, build_index(np.array(["a", "b"]), [blank]))[0] <= 0).all()


def test_the_nearest_hash_is_looked_at_however_many_lie_near(train):
    tile = train[1][:1]
    noise = np.random.default_rng(0).normal(0, 6, (12, *tile.shape[1:]))
    near = np.clip(np.roll(tile, 3, 2) + noise, 0, 255).astype(np.uint8)
    index = build_index(np.arange(13).astype(str), [near, tile])
    assert copy_search._alike(perceptual_hash(grey_of(tile))[0], index, 4)[0] == 12


def test_none_and_nowhere(index):
    assert len(copy_scores(np.empty((0, SIDE, SIDE, 3), np.uint8), index)[0]) == 0
    nowhere = build_index(np.array([], str), [])
    assert copy_scores(_tiles(2)[1][:1], nowhere)[0] == [-1]


def test_a_large_split_is_searched_by_cells_with_the_same_findings(train, index, monkeypatch, tmp_path):
    monkeypatch.setattr(copy_search, "_MOST_FLAT", 100)
    by_cells = build_index(index.tile_ids, [train[1][:9], train[1][9:]])
    assert by_cells.patches.ntotal == index.patches.ntotal and type(by_cells.patches) is not type(index.patches)
    CopyFilter(by_cells).save(tmp_path)
    kept = CopyFilter.load(tmp_path).index  # its patches stay on disk
    others = _tiles(2)[1]
    assert np.allclose(copy_scores(train[1], kept)[0], 1, atol=1e-5)
    assert (copy_scores(others, kept)[0] == copy_scores(others, by_cells)[0]).all()
    monkeypatch.setattr(copy_search, "_alike", lambda *_: np.array([], int))  # so that patches alone propose
    rng = np.random.default_rng(0)
    picture, _, places = train
    boxes = [PixelBox(x, y, SIDE, SIDE) for y, x in places]
    copies = np.stack([disguised(cut(picture, box, rng, shift=True, scale=True), rng) for box in boxes])
    one_by_one, found = (copy_scores(copies, searched)[0] for searched in (index, by_cells))
    assert (found >= one_by_one - 1e-5).mean() >= 0.9


@given(seed=st.integers(0, 1000), gain=st.floats(0.5, 1.0), offset=st.integers(0, 60))
@settings(deadline=None, max_examples=20)
def test_brightness_and_contrast_change_neither_hash_nor_fit(seed, gain, offset):
    rng = np.random.default_rng(seed)
    grey = gaussian_filter(rng.standard_normal((1, 64, 64)), (0, 3, 3))
    grey = np.round(120 + 40 * grey / grey.std()).clip(0, 190).astype(np.uint8)
    other = np.round(grey * gain + offset).clip(0, 255).astype(np.uint8)
    assert register(grey[0], other[0]) > 0.99
    assert np.bitwise_count(perceptual_hash(grey) ^ perceptual_hash(other)) <= 4


def test_grey_is_an_average_over_areas():
    image = np.zeros((1, 128, 128, 3), np.uint8)
    image[:, ::2] = 200
    assert np.abs(grey_of(image).astype(int) - 100).max() <= 1


def test_a_variation_of_a_tile_is_compared_with_the_others_and_apart_with_its_source(train, index, most_of_others):
    images, rng, sources = train[1], np.random.default_rng(0), np.arange(len(train[1]))
    varied = np.stack([DISGUISES["jpeg"](tile, rng) for tile in images])
    assert copy_scores(varied, index)[0].min() > most_of_others
    assert np.quantile(copy_scores(varied, index, sources)[0], 0.9) < most_of_others + 0.1
    assert source_likeness(varied, index, sources).min() > most_of_others
    assert np.isnan(source_likeness(varied, index, np.full(len(images), -1))).all()
    wrong = np.roll(sources, 1)  # it was begun from another tile, and is a copy of this one
    score, nearest = copy_scores(varied, index, wrong)
    assert score.min() > most_of_others and (nearest == sources).all()
    assert np.nanmax(source_likeness(varied, index, wrong)) < most_of_others + 0.1


def test_an_overlapping_neighbour_of_the_source_is_no_other_tile(train):
    picture, _, places = train
    y, x = places[0]
    neighbours = np.stack([picture[y : y + SIDE, x + dx : x + dx + SIDE] for dx in (0, 8, 16)])
    index = build_index(np.array(["a", "b", "c"]), [neighbours])
    copy, source = neighbours[:1], np.array([0])
    assert copy_scores(copy, index)[0][0] == pytest.approx(1)
    assert copy_scores(copy, index, source)[0][0] < 0.5


def test_what_is_as_like_its_source_as_a_disguised_copy_is_rejected_for_that(train, index, tmp_path):
    images, rng = train[1], np.random.default_rng(0)
    rows = pd.DataFrame({"tile_id": index.tile_ids, "input_ref": index.tile_ids, "split_group": "p"})
    params = Params.model_validate({"tile": {"mpp": 1.0, "labels": {"source": "slide", "classes": ["a", "b"]}}})
    found = CopyFilter.fit(fitting_of(Tiles(images, rows, lambda _: None, None), params, tmp_path))
    found.save(tmp_path)
    found = CopyFilter.load(tmp_path)
    copies = np.stack([disguised(tile, rng, IN_PLACE) for tile in images])
    varied = images // 2 + np.roll(images, 1, axis=0) // 2  # half of another tile
    for made, share in ((images, 1.0), (copies, 0.85)):
        scores = found.scores(Tiles(made, rows, None, None))
        reasons = found.reasons(scores, 0.6)
        assert reasons[COPY_OF_SOURCE].mean() >= share and not reasons[found.reason].any()
    scores = found.scores(Tiles(varied, rows, None, None))
    assert scores[SOURCE_LIKENESS].median() > 0.5 and not found.reasons(scores, 0.6)[COPY_OF_SOURCE].any()


def test_only_what_was_begun_from_a_tile_can_be_a_copy_of_its_source(train, index):
    rows = pd.DataFrame({"input_ref": ["t0", None, "elsewhere"]})
    found = CopyFilter(index, 0.9)
    scores = found.scores(Tiles(train[1][[0, 1, 2]], rows, None, None))
    reasons = found.reasons(scores, 0.6)
    assert reasons[COPY_OF_SOURCE].tolist() == [True, False, False]
    assert reasons[found.reason].tolist() == [False, True, True]
    assert scores[SOURCE_LIKENESS].notna().tolist() == [True, False, False]
