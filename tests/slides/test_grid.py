"""Tiles lie inside the slide, and each is read once."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from histoloom.slides.grid import blocks, grid

size = st.integers(1, 300)
step = st.integers(5, 70)


@given(size, size, step, step)
def test_grid_holds_every_whole_tile_once(width, height, tile, stride):
    corners = list(grid(width, height, tile, stride))
    assert len(corners) == len(set(corners))
    assert all(x + tile <= width and y + tile <= height for x, y in corners)
    assert all(x % stride == 0 and y % stride == 0 for x, y in corners)
    across, down = ((length - tile) // stride + 1 if length >= tile else 0 for length in (width, height))
    assert len(corners) == across * down


@given(size, size, step, st.integers(1, 8), st.integers(1, 3))
def test_a_shifted_grid_leaves_less_than_a_stated_rest_uncovered_and_holds_the_plain_one(
    width, height, tile, parts, least
):
    stride = max(1, tile // parts)
    plain, shifted = list(grid(width, height, tile, stride)), list(grid(width, height, tile, stride, least))
    assert set(plain) <= set(shifted) and len(shifted) == len(set(shifted)) and bool(plain) == bool(shifted)
    covered = np.zeros((height, width), bool)
    for x, y in shifted:
        assert 0 <= x <= width - tile and 0 <= y <= height - tile
        covered[y : y + tile, x : x + tile] = True
    if shifted:
        assert covered[: height - least + 1, : width - least + 1].all()
        assert np.diff(sorted({x for x, _ in shifted})).min(initial=least) >= min(least, stride)


@given(size, size, step, step, st.integers(1, 200), st.integers(0, 30), st.data())
def test_each_tile_is_in_one_block_whose_box_holds_it_and_its_margin(width, height, tile, stride, block, margin, data):
    corners = [corner for corner in grid(width, height, tile, stride) if data.draw(st.booleans())][:60]
    found = list(blocks(corners, tile, block, margin))
    alone = tile + 2 * margin
    assert Counter(corner for _, members in found for corner in members) == Counter(corners)
    for (left, top, across, down), members in found:
        assert across < block + alone and down < block + alone
        assert left >= -margin and top >= -margin and left + across <= width + margin and top + down <= height + margin
        for x, y in members:
            assert left + margin <= x and x + tile + margin <= left + across
            assert top + margin <= y and y + tile + margin <= top + down
        assert across * down <= 1.25 * len(members) * alone**2


def test_a_block_that_lacks_a_corner_is_read_in_few_boxes():
    corners = [(x, y) for x, y in grid(80, 80, 10, 10) if x < 60 or y < 60]
    assert len(list(blocks(corners, 10, 80))) == 1
    assert len(list(blocks([(x, y) for x, y in corners if x < 30 or y < 20], 10, 80))) <= 4


def test_a_wide_margin_is_not_read_again_and_again():
    """Two tiles that lie a tile apart: each alone would read the margin between them twice."""
    corners = [(0, 0), (20, 0)]
    assert len(list(blocks(corners, 10, 100))) == 2 and len(list(blocks(corners, 10, 100, 20))) == 1
