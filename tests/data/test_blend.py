"""How the border of a region that is made anew fades into what is kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from histoloom.data.inputs import BLEND, FREE, share_anew
from histoloom.sampling.drawn import Drawn, Rows, _blended

REGIONS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(REGIONS, st.floats(0, 6))
def test_what_is_kept_has_no_share_and_each_part_is_wholly_new_somewhere(free, width):
    share = share_anew(free, width)
    assert share.dtype == np.uint8 and ((share == 0) == ~free).all()
    assert not free.any() or share.max() == 255


@given(REGIONS)
def test_without_width_all_of_the_region_is_new(free):
    assert (share_anew(free, 0.0) == np.where(free, 255, 0)).all()


def test_the_share_grows_with_the_distance_from_the_border():
    free = np.zeros((21, 21), bool)
    free[:, :15] = True
    share = share_anew(free, 4)
    assert share[10, 10:16].tolist() == [255, 255, 191, 128, 64, 0]
    assert (share[:, :10] == 255).all()  # the tile's own edge is no border


def test_a_part_that_is_narrower_than_the_width_is_new_in_its_middle():
    free = np.zeros((30, 30), bool)
    free[2:5, 2:28] = True
    free[10:28, 2:28] = True
    share = share_anew(free, 6)
    assert share[3, 10] == 255 and share[18, 15] == 255 and share[2, 10] < 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_blended_values_lie_between_and_are_kept_where_the_share_is_nothing_or_all(dtype):
    draw = np.random.default_rng(0)
    old, new = (draw.integers(0, np.iinfo(dtype).max, (2, 8, 8, 3), dtype) for _ in range(2))
    share = np.repeat(np.array([0, 0.25, 0.5, 1], np.float32), 32).reshape(2, 8, 8)
    found = _blended(old, new, share)
    assert found.dtype == dtype
    assert (found[share == 0] == old[share == 0]).all() and (found[share == 1] == new[share == 1]).all()
    assert ((found >= np.minimum(old, new)) & (found <= np.maximum(old, new))).all()


@pytest.mark.parametrize("blended", [True, False])
def test_pictures_fade_and_masks_do_not(blended):
    draw = np.random.default_rng(0)
    free = np.zeros((1, 12, 12), np.uint8)
    free[0, 2:10, 2:10] = 1
    old, new = (
        {"image": draw.integers(a, b, (1, 12, 12, 3), np.uint8), "mask": np.full((1, 12, 12), c, np.uint8)}
        for a, b, c in ((0, 90, 1), (160, 255, 2))
    )
    inputs = old | {FREE: free} | ({BLEND: share_anew(free[0] > 0, 3)[None]} if blended else {})
    nothing = None  # the model and the conditions are not asked
    found = Drawn(nothing, nothing, Rows(np.zeros(1, np.uint64), nothing, nothing, inputs))._whole(new)
    assert (found["mask"] == np.where(free, 2, 1)).all()
    assert (found["image"][free == 0] == old["image"][free == 0]).all()
    assert (found["image"][0, 4:8, 4:8] == new["image"][0, 4:8, 4:8]).all()
    assert (found["image"][0, 2, 2:10].max() < 160) == blended
