"""Views of tiles that show the same tissue: cropped, mirrored, turned, stained otherwise, blurred.

Colours are shifted in the stains' own space (Tellez et al. 2018). Nothing is made grey or inverted: no scanner does that.
"""

from __future__ import annotations

import math

import torch
from skimage.color import rgb_from_hed
from torchvision.transforms.v2.functional import gaussian_blur

_LEAST_AREA = 0.4
"""Share of the tile that a crop has at least. A smaller one would show nuclei at another magnification."""
_ASPECT = 1.15
_SHIFT = 0.15
"""Deviation of each stain's factor. Nothing is added, so that glass stays glass."""
_BRIGHTNESS = 0.1
_BLURRED = 0.3
_BLUR_PX = (0.3, 1.2)
_LEAST_LIGHT = 1 / 255


def view(images: torch.Tensor, side_px: int, generator: torch.Generator) -> torch.Tensor:
    """A view of each tile, drawn tile by tile.

    Parameters
    ----------
    images : (b, 3, h, h) uint8, brought to `side_before`.

    Returns
    -------
    (b, 3, side_px, side_px) in [0, 1].
    """
    return _blurred(restained(_cropped(images.float() / 255, side_px, generator), generator), generator)


def side_before(side_px: int, tile_px: int) -> int:
    """The side to which tiles are brought before views of `side_px` are made. Crops are sampled bilinearly, so they may not shrink much."""
    return min(tile_px, round(1.5 * side_px))


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


def _cropped(images: torch.Tensor, side_px: int, generator: torch.Generator) -> torch.Tensor:
    """A crop of each, mirrored and turned by quarters."""
    count = len(images)
    area, aspect = (
        _uniform(count, _LEAST_AREA, 1, generator),
        _uniform(count, -math.log(_ASPECT), math.log(_ASPECT), generator).exp(),
    )
    width, height = ((area * ratio).sqrt().clamp(max=1) for ratio in (aspect, 1 / aspect))
    left, top = ((1 - side) * _uniform(count, -1, 1, generator) for side in (width, height))
    turn = torch.randint(0, 4, (count,), generator=generator)
    mirror = 1 - 2 * torch.randint(0, 2, (count,), generator=generator)
    cos, sin = (torch.tensor(of)[turn] for of in ([1, 0, -1, 0], [0, 1, 0, -1]))
    rows = [
        torch.stack([width * cos * mirror, -width * sin, left], 1),
        torch.stack([height * sin * mirror, height * cos, top], 1),
    ]
    grid = torch.nn.functional.affine_grid(torch.stack(rows, 1), [count, 3, side_px, side_px], align_corners=False)
    return torch.nn.functional.grid_sample(images, grid.to(images), padding_mode="reflection", align_corners=False)


def restained(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Haematoxylin, eosin and the rest of each picture, (b, 3, h, w) in [0, 1], each stronger or weaker; and light, brighter or darker."""
    count = len(images)
    stains = torch.from_numpy(rgb_from_hed).to(images)
    factor = (1 + _SHIFT * torch.randn(count, 1, 3, generator=generator)).clamp(min=0.3).to(images)
    light = (1 + _BRIGHTNESS * torch.randn(count, 1, 1, 1, generator=generator)).clamp(min=0.5).to(images)
    density = -images.clamp(min=_LEAST_LIGHT).log().flatten(2)
    mixed = (torch.linalg.inv(stains) * factor) @ stains  # (b, 3, 3): to stains, each scaled, and back
    return (torch.exp(-(mixed.mT @ density)).view_as(images) * light).clamp(0, 1)


def _blurred(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Some of them out of focus, all by the same deviation."""
    chosen = (torch.rand(len(images), generator=generator) < _BLURRED).to(images.device)
    deviation = float(_uniform(1, *_BLUR_PX, generator))
    images[chosen] = gaussian_blur(images[chosen], [7, 7], [deviation, deviation])
    return images
