"""The classical augmentation of tiles: mirrored, turned, and shifted in brightness and colours."""

from __future__ import annotations

import torch

_STAIN_SHIFT = 0.08


def augmented(images: torch.Tensor, generator: torch.Generator, masks: torch.Tensor | None = None):
    """Flips and quarter turns of the whole batch, brightness and colours shifted picture by picture.

    Parameters
    ----------
    images : square, (b, 3, h, h) in [0, 1].
    masks : (b, h, h) to be mirrored and turned with them.

    Returns
    -------
    The images, and the masks or None.
    """
    for axis in (2, 3):
        if torch.rand((), generator=generator) < 0.5:
            images, masks = images.flip(axis), None if masks is None else masks.flip(axis - 1)
    turns = int(torch.randint(0, 4, (), generator=generator))
    images, masks = images.rot90(turns, (2, 3)), None if masks is None else masks.rot90(turns, (1, 2))
    shift = _STAIN_SHIFT * torch.randn(len(images), 3, 1, 1, generator=generator).to(images)
    return (images * (1 + shift.mean(1, keepdim=True)) + shift).clamp(0, 1), masks
