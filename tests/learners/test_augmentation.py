"""Classical augmentation keeps range and shape, repeats, and moves a mask as it moves its picture."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from histoloom.learners.augmentation import augmented


@given(seed=st.integers(0, 50))
def test_a_mask_goes_where_its_picture_goes(seed):
    drawn = torch.Generator().manual_seed(seed)
    masks = (torch.rand(3, 6, 6, generator=drawn) < 0.3).long()
    images = masks[:, None].expand(3, 3, 6, 6) * 0.6 + 0.2
    first, moved = augmented(images, torch.Generator().manual_seed(seed), masks)
    second, none = augmented(images, torch.Generator().manual_seed(seed))
    assert none is None and torch.equal(first, second) and first.shape == images.shape
    assert first.min() >= 0 and first.max() <= 1
    for picture, mask in zip(first, moved):
        if 0 < mask.sum() < mask.numel():
            assert picture[:, mask == 1].min() > picture[:, mask == 0].max()
    assert not torch.equal(first, images)
