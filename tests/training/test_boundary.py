"""The weight of a mask's border: one there, falling with the distance from it, the faster the less noise there is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histoloom.config import TrainDenoiser
from histoloom.targets.masks import Masks
from histoloom.training.boundary import boundary_weights


def coded(mask: np.ndarray, classes: int = 1) -> torch.Tensor:
    return Masks(classes).encode({"mask": mask[None]})


def test_a_straight_border_by_hand():
    mask = np.zeros((4, 8), np.uint8)
    mask[:, 4:] = 1
    weights = boundary_weights(coded(mask), torch.tensor([0.0]), 1.0)  # gamma 1 at no noise: d itself
    assert weights.shape == (1, 1, 4, 8)
    assert torch.allclose(weights[0, 0, 0], torch.tensor([0, 1 / 3, 2 / 3, 1, 1, 2 / 3, 1 / 3, 0]))
    half = boundary_weights(coded(mask), torch.tensor([0.5]), 1.5)  # p = 0.75^1.5
    assert torch.allclose(half[0, 0, 0], weights[0, 0, 0] ** (0.75**1.5))


@given(st.integers(0, 2**16 - 1), st.floats(0, 1), st.floats(0.1, 3))
def test_it_lies_between_nought_and_one_and_is_flat_in_pure_noise(seed, level, gamma):
    mask = np.random.default_rng(seed).integers(0, 3, (6, 6)).astype(np.uint8)
    weights = boundary_weights(coded(mask, 2), torch.tensor([level]), gamma)
    assert bool(((weights >= 0) & (weights <= 1)).all()) and bool(weights.max() == 1)
    assert bool((boundary_weights(coded(mask, 2), torch.tensor([1.0]), gamma) == 1).all())


@pytest.mark.parametrize("pixels", [0, 1])
def test_a_mask_of_nearly_one_class_counts_alike(pixels):
    mask = np.zeros((16, 16), np.uint8)
    mask[0, :pixels] = 1
    assert bool((boundary_weights(coded(mask), torch.tensor([0.0]), 1.5) == 1).all())


def test_only_masks_have_borders():
    with pytest.raises(ValueError, match=r"loss_weight\.boundary is of target: masks"):
        TrainDenoiser(target="pixels", loss_weight={"boundary": 1.5})
