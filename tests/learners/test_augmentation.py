"""Augmentation keeps range and shape, repeats, and moves a mask as it moves its picture."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from histoloom.learners.augmentation import augmented, mixed


@pytest.mark.parametrize("how", ["classical", "strong"])
@given(seed=st.integers(0, 50))
@settings(max_examples=25)
def test_a_mask_goes_where_its_picture_goes(how, seed):
    drawn = torch.Generator().manual_seed(seed)
    masks = (torch.rand(3, 4, 4, generator=drawn) < 0.3).long().repeat_interleave(6, 1).repeat_interleave(6, 2)
    images = masks[:, None].expand(3, 3, 24, 24) * 0.6 + 0.2
    first, moved = augmented(images, torch.Generator().manual_seed(seed), masks, how)
    again, _ = augmented(images, torch.Generator().manual_seed(seed), masks, how)
    assert torch.equal(first, again) and first.shape == images.shape and moved.dtype == masks.dtype
    assert first.min() >= 0 and first.max() <= 1 and {*moved.unique().tolist()} <= {0, 1}
    for picture, mask in zip(first, moved):
        if 0 < mask.sum() < mask.numel():  # borders are blended where a picture is turned
            assert picture[:, mask == 1].median() > picture[:, mask == 0].median()
    assert not torch.equal(first, images)


@given(seed=st.integers(0, 20))
@settings(max_examples=10)
def test_strong_augmentation_without_masks_repeats_and_leaves_the_global_generator_alone(seed):
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    before = torch.get_rng_state()
    first, none = augmented(images, torch.Generator().manual_seed(seed), how="strong")
    second, _ = augmented(images, torch.Generator().manual_seed(seed), how="strong")
    assert none is None and torch.equal(first, second) and first.shape == images.shape
    assert first.min() >= 0 and first.max() <= 1 and torch.isfinite(first).all()
    assert torch.equal(torch.get_rng_state(), before)
    as_it_is, _ = augmented(images, torch.Generator().manual_seed(seed), how="none")
    assert torch.equal(as_it_is, images)


def test_mixed_labels_are_probabilities_and_half_of_the_batches_stay():
    images, labels = torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])
    stayed = 0
    for seed in range(60):
        shown, told = mixed(images, labels, 3, torch.Generator().manual_seed(seed))
        assert torch.allclose(told.sum(1), torch.ones(6)) and told.min() >= 0
        stayed += torch.equal(shown, images)
        if torch.equal(shown, images):
            assert torch.equal(told.argmax(1), labels)
        again, _ = mixed(images, labels, 3, torch.Generator().manual_seed(seed))
        assert torch.equal(shown, again)
    assert 15 < stayed < 45
