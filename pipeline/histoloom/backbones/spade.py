"""SPADE: group norms whose scale and shift come from a map, pixel by pixel (Park et al. 2019, eq. 1)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class MapHolder:
    """The map of the forward in progress; the norms of one model share it. Not a module, and not saved."""

    value: torch.Tensor | None = None


class SpadeNorm(nn.Module):
    """norm(x) * (1 + gamma(map)) + beta(map); gamma and beta begin at zero, so a new one is the norm alone."""

    def __init__(self, norm: nn.GroupNorm, map_channels: int, hidden: int, holder: MapHolder):
        super().__init__()
        self.norm = norm
        self.shared = nn.Conv2d(map_channels, hidden, 3, padding=1)
        self.scale_shift = nn.Conv2d(hidden, 2 * norm.num_channels, 3, padding=1)
        nn.init.zeros_(self.scale_shift.weight)
        nn.init.zeros_(self.scale_shift.bias)
        self._holder = holder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        resized = F.adaptive_avg_pool2d(self._holder.value, x.shape[-2:])
        scale, shift = self.scale_shift(F.silu(self.shared(resized.to(x.dtype)))).chunk(2, 1)
        return self.norm(x) * (1 + scale) + shift


def install_spade(unet: nn.Module, map_channels: int, hidden: int = 32) -> None:
    """Turn every residual block's norms in a diffusers UNet's decoder into SPADE norms."""
    holder = MapHolder()
    for block in unet.up_blocks:
        for resnet in block.resnets:
            resnet.norm1 = SpadeNorm(resnet.norm1, map_channels, hidden, holder)
            resnet.norm2 = SpadeNorm(resnet.norm2, map_channels, hidden, holder)
    unet.spade_map = holder
