"""Masks of nuclei are edited without harm to the nuclei that stay."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import label as components

from histoloom.data.nuclei_layout import NucleiLayout, multiplied, outlines, scattered, swapped

SIDE = 48


@st.composite
def layouts(draw) -> NucleiLayout:
    """Discs of two classes, some of them touching."""
    mask, instance = np.zeros((SIDE, SIDE), np.uint8), np.zeros((SIDE, SIDE), np.int32)
    y, x = np.mgrid[:SIDE, :SIDE]
    count = draw(st.integers(0, 6))
    for number in range(1, count + 1):
        cy, cx = draw(st.integers(0, SIDE - 1)), draw(st.integers(0, SIDE - 1))
        here = (np.hypot(y - cy, x - cx) <= draw(st.integers(2, 5))) & (instance == 0)
        mask[here], instance[here] = draw(st.integers(1, 2)), number
    return NucleiLayout(mask, instance)


def counts(layout: NucleiLayout) -> dict[int, int]:
    found = [n.class_id for n in layout.nuclei().values()]
    return {c: found.count(c) for c in (1, 2)}


@given(layouts())
def test_outlines_lie_inside_nuclei_and_part_them(layout):
    edge = outlines(layout.instance) > 0
    assert not (edge & (layout.instance == 0)).any()
    inner = np.where(edge, 0, layout.instance)
    pieces, found = components(inner > 0)
    assert all(len(np.unique(inner[pieces == k])) == 1 for k in range(1, found + 1))


def test_a_border_is_no_outline():
    assert outlines(np.ones((4, 4), np.int32)).sum() == 0


@given(layouts(), st.integers(0, 99), st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]))
def test_multiplying_changes_one_class_alone(layout, seed, times):
    rng, donors = np.random.default_rng(seed), list(layout.nuclei().values())
    out = multiplied(layout, 1, times, [d for d in donors if d.class_id == 1], rng)
    before, after = counts(layout), counts(out)
    assert after[2] == before[2]
    wanted = before[1] + round(before[1] * (times - 1))
    if times <= 1:
        assert after[1] == wanted
    else:
        assert before[1] <= after[1] <= wanted
        assert (out.instance[layout.instance > 0] == layout.instance[layout.instance > 0]).all()
    assert ((out.mask > 0) == (out.instance > 0)).all()


@given(layouts(), st.integers(0, 99))
def test_scattering_uses_whole_real_nuclei_that_do_not_touch(layout, seed):
    donors = list(layout.nuclei().values())
    out = scattered(layout, donors, np.random.default_rng(seed))
    sizes = {int(d.shape.sum()) for d in donors}
    numbers = [n for n in np.unique(out.instance) if n]
    assert all(int((out.instance == n).sum()) in sizes for n in numbers)
    assert components(out.instance > 0)[1] == sum(components(out.instance == n)[1] for n in numbers)
    assert ((out.mask > 0) == (out.instance > 0)).all()


def test_room_is_found_for_twice_as_many():
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[5:10, 5:10] = 1
    layout = NucleiLayout(mask, mask.astype(np.int32))
    donors = list(layout.nuclei().values())
    out = multiplied(layout, 1, 5.0, donors, np.random.default_rng(0))
    assert counts(out)[1] == 5


@given(layouts())
def test_swapping_there_and_back_is_nothing(layout):
    there = swapped(layout, {1: 2, 2: 1})
    assert (there.mask[layout.mask == 1] == 2).all() and (there.mask[layout.mask == 2] == 1).all()
    assert (swapped(there, {1: 2, 2: 1}).mask == layout.mask).all()
    gone = swapped(layout, {1: 0})
    assert (gone.mask == np.where(layout.mask == 1, 0, layout.mask)).all()
    assert ((gone.instance > 0) == (gone.mask > 0)).all(), "an outline would stay where nothing is asked for"
