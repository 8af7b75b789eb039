"""Made masks that hold a class are taken more often within a chain, with the pictures that they are of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from histoloom.sampling.chain import PartRun


def part(masks: np.ndarray) -> PartRun:
    made = {"mask": masks, "image": np.arange(len(masks))}
    return PartRun(
        pd.DataFrame(index=range(len(masks))), Path(), "p", 4, ("usual", "rare"), made, {"label": np.arange(len(masks))}
    )


def held(share: float, count: int = 1000) -> np.ndarray:
    masks = np.zeros((count, 2, 2), np.uint8)
    masks[: int(share * count), 0, 0] = 2
    return np.random.default_rng(0).permutation(masks)


def test_masks_that_hold_it_are_taken_so_many_times_as_often():
    run = part(held(0.1))
    run._oversample({"rare": 6.0}, 1)
    assert abs((run.made["mask"] == 2).any((1, 2)).mean() - 0.6 / 1.5) < 0.01 and len(run.made["mask"]) == 1000


@given(st.floats(0, 1), st.floats(1, 1000), st.integers(0, 2**63))
def test_a_picture_stays_with_its_mask_and_a_run_is_like_another(share, times, seed):
    masks = held(share, 40)
    first, again = part(masks), part(masks)
    for run in (first, again):
        run._oversample({"rare": times}, seed)
    assert (first.made["mask"] == masks[first.made["image"]]).all()
    assert (first.made["image"] == first.conditions["label"]).all() and (
        first.made["image"] == again.made["image"]
    ).all()


def test_of_a_class_that_no_mask_holds_nothing_changes():
    run = part(held(0))
    run._oversample({"rare": 9.0}, 5)
    assert (run.made["image"] == np.arange(1000)).all()
