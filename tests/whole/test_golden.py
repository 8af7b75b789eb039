"""The shared tiny study is what it was in the version before, pixel for pixel."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.golden.write import EXACT, NEAR, cpu, values

pytestmark = pytest.mark.long

SAME_CPU, OTHER_CPU = 1, 16
"""Grey levels by which what a network made may differ. With AVX2 in place of AVX-512 it differs by up to 7."""


@pytest.fixture(scope="module")
def found(study):
    return values(study)


@pytest.fixture
def renew(study) -> str:
    return f"If the change is meant, say so in CHANGELOG.md and write the values anew: python -m tests.golden.write {study}"


def test_cut_tiles_and_masks_are_the_same_to_the_bit(found, renew):
    kept, now = json.loads(EXACT.read_text(encoding="utf-8")), found[0]
    assert sorted(now) == sorted(kept), f"Other arrays than in the version before. {renew}"
    drawn = [place for place in kept if place.startswith("slides/")]
    if [now[place] for place in drawn] != [kept[place] for place in drawn]:
        pytest.skip("numpy draws the tiny study's slides otherwise on this CPU, so their tiles can't be compared")
    differ = [place for place in kept if now[place] != kept[place]]
    assert not differ, (
        f"{', '.join(differ)} differ from the version before. To look at both, check out that version, run this test and "
        f"compare the two studies: python -m tests.golden.arrays STUDY OTHER. {renew}"
    )


def test_sampled_tiles_and_a_woven_slide_are_the_same_as_near_as_the_cpu_lets_them_be(found, renew, tmp_path):
    kept, now = dict(np.load(NEAR)), found[1]
    allowed = SAME_CPU if str(kept.pop("cpu")) == cpu() else OTHER_CPU
    assert {place: array.shape for place, array in now.items()} == {p: a.shape for p, a in kept.items()}, renew
    off = {place: np.abs(now[place].astype(int) - kept[place]) for place in kept}
    differ = {place: by for place, by in off.items() if by.max() > allowed}
    for place, by in differ.items():
        rows = [
            np.hstack(list(a.reshape(-1, *a.shape[-3:]))) for a in (kept[place], now[place], (16 * by).clip(0, 255))
        ]
        Image.fromarray(np.vstack(rows).astype(np.uint8)).save(tmp_path / f"{place.replace('/', '-')}.png")
    worst = ", ".join(f"{place} (by up to {by.max()} grey levels)" for place, by in differ.items())
    assert not differ, (
        f"{worst} differ from the version before, by more than {allowed}. To look: {tmp_path}/*.png show what was kept, what is made now, and their "
        f"difference 16 times as strong. {renew}"
    )
