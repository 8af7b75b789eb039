"""SPADE: group norms whose scale and shift come from a map, pixel by pixel (Park et al. 2019, eq. 1)."""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from diffusers.models import UNet2DConditionModel


class MapHolder(local):
    """The map of the forward in progress in this thread; the norms of one model share it. Not a module, and not saved."""

    value: torch.Tensor | None = None

    def __reduce__(self):
        return MapHolder, ()


class SpadeNorm(nn.Module):
    """norm(x) * (1 + gamma(map)) + beta(map); gamma and beta begin at zero, so a new one is the norm alone."""

    def __init__(self, norm: nn.GroupNorm, map_channels: int, hidden: int, holder: MapHolder):
        super().__init__()
        self.norm = norm
        self.shared = nn.Conv2d(map_channels, hidden, 3, padding=1)
        self.scale_shift = nn.Conv2d(hidden, 2 * norm.num_channels, 3, padding=1)
        for parameter in self.scale_shift.parameters():
            nn.init.zeros_(parameter)
        self._holder = holder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert self._holder.value is not None, "the UNet gives a map before each forward"
        resized = F.adaptive_avg_pool2d(self._holder.value, (x.shape[2], x.shape[3]))
        scale, shift = self.scale_shift(F.silu(self.shared(resized.to(x.dtype)))).chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift


def install_spade(unet: UNet2DConditionModel, map_channels: int, hidden: int = 32) -> MapHolder:
    """Turn every residual block's norms in a diffusers UNet's decoder into SPADE norms, which read the map from what is given back."""
    from diffusers.models.resnet import ResnetBlock2D

    holder = MapHolder()
    blocks = [block for block in unet.get_submodule("up_blocks").modules() if isinstance(block, ResnetBlock2D)]
    for block in blocks:
        block.register_module("norm1", SpadeNorm(block.norm1, map_channels, hidden, holder))
        block.register_module("norm2", SpadeNorm(block.norm2, map_channels, hidden, holder))
    return holder
