"""The augmentation of labelled tiles: the classical one, and a strong one, which synthetic tiles must add something to."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from histoloom.config.arms import Augmentation
from histoloom.training.views import restained

_STAIN_SHIFT = 0.08
_SCALE = 1.2
"""Of a strong change of place: a picture is at most so much enlarged, or reduced."""
_OPERATIONS, _MAGNITUDE = 2, 6
"""Of RandAugment (Cubuk et al. 2020): how many of its operations each picture gets, and how strong, of 30."""
_GLASS = 1.0
_MIXUP_ALPHA, _CUTMIX_ALPHA = 0.2, 1.0
_MIXED = 0.5
"""Of batches, the fraction that is mixed."""


def augmented(
    images: torch.Tensor, generator: torch.Generator, masks: torch.Tensor | None = None, how: Augmentation = "classical"
) -> tuple[torch.Tensor, Any]:
    """Tiles as they are, or augmented.

    Parameters
    ----------
    images : square, (b, 3, h, h) in [0, 1].
    masks : (b, h, h) to be mirrored and turned with them.
    how : classical: flips and quarter turns of the whole batch, brightness and colours shifted picture by picture. strong: each picture
        mirrored, turned by any angle and scaled; its stains jittered; and, where there are no masks, RandAugment.

    Returns
    -------
    The images, and the masks or None.
    """
    if how == "none":
        return images, masks
    if how == "strong":
        images, masks = _placed(images, masks, generator)
        images = restained(images, generator)
        return (_by_randaugment(images, generator) if masks is None else images), masks
    for axis in (2, 3):
        if torch.rand((), generator=generator) < 0.5:
            images, masks = images.flip(axis), None if masks is None else masks.flip(axis - 1)
    turns = int(torch.randint(0, 4, (), generator=generator))
    images, masks = images.rot90(turns, (2, 3)), None if masks is None else masks.rot90(turns, (1, 2))
    shift = _STAIN_SHIFT * torch.randn(len(images), 3, 1, 1, generator=generator).to(images)
    return (images * (1 + shift.mean(1, keepdim=True)) + shift).clamp(0, 1), masks


def mixed(
    images: torch.Tensor, labels: torch.Tensor, classes: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Half of all batches mixed by mixup (Zhang et al. 2018) or CutMix (Yun et al. 2019), as torchvision has them.

    Parameters
    ----------
    labels : (b,) class numbers.

    Returns
    -------
    The images, and labels (b, classes) as probabilities.
    """
    told = F.one_hot(labels, classes).float()
    if torch.rand((), generator=generator) >= _MIXED:
        return images, told
    mix = v2.RandomChoice(
        [v2.MixUp(alpha=_MIXUP_ALPHA, num_classes=classes), v2.CutMix(alpha=_CUTMIX_ALPHA, num_classes=classes)]
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_drawn_seed(generator))
        return mix(images, labels)


def _placed(
    images: torch.Tensor, masks: torch.Tensor | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Each picture mirrored, turned by any angle and scaled, its mask with it. What lies outside is the picture reflected."""
    count = len(images)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    scale = _SCALE ** (2 * torch.rand(count, generator=generator) - 1)
    mirror = 1 - 2 * torch.randint(0, 2, (count,), generator=generator)
    cos, sin, still = scale * angle.cos(), scale * angle.sin(), torch.zeros(count)
    rows = [torch.stack([cos * mirror, -sin, still], 1), torch.stack([sin * mirror, cos, still], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False).to(images)
    where = {"padding_mode": "reflection", "align_corners": False}
    if masks is not None:
        masks = F.grid_sample(masks[:, None].to(images), grid, mode="nearest", **where)[:, 0].to(masks)  # type: ignore[arg-type]
    return F.grid_sample(images, grid, **where).clamp(0, 1), masks  # type: ignore[arg-type]


def _by_randaugment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    change = v2.RandAugment(_OPERATIONS, _MAGNITUDE, fill=_GLASS)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_drawn_seed(generator))
        return torch.stack([change(picture) for picture in images]).clamp(0, 1)


def _drawn_seed(generator: torch.Generator) -> int:
    """For what of torchvision takes no generator."""
    return int(torch.randint(0, 2**31, (), generator=generator))
