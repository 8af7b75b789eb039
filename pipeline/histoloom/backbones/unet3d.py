"""A convolutional UNet of volumes (Çiçek et al. 2016, 3D U-Net). Maps are repeated along the depth."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Self

import torch
from torch import nn
from torch.nn import functional as F

from histoloom.backbones.backbone import Specs
from histoloom.backbones.modulated import Levels, groups, sizes_of
from histoloom.conditions.batch import Conditions
from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from histoloom.config import TrainDenoiser


class _Block(nn.Module):
    """Two 3 x 3 x 3 convolutions beside a shortcut; after the first, data are scaled and shifted by what is told."""

    def __init__(self, channels: int, out: int, told: int):
        super().__init__()
        self.first = nn.Conv3d(channels, out, 3, padding=1)
        self.norm = nn.GroupNorm(groups(out), out)
        self.film = nn.Linear(told, 2 * out)
        self.second = nn.Conv3d(out, out, 3, padding=1)
        self.shortcut = nn.Conv3d(channels, out, 1)

    def forward(self, x: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        scale, shift = self.film(told)[..., None, None, None].chunk(2, 1)
        inside = F.silu(self.norm(self.first(x)) * (1 + scale) + shift)
        return self.shortcut(x) + self.second(inside)


class UNet3D(Levels):
    """Data (b, channels, d, h, w), with maps (b, c, h, w) concatenated at each depth.

    Each level has one block on the way down and one on the way up. A further channel holds each section's depth, from -1 to 1:
    convolutions that see the same map at each depth could hardly tell the middle from the ends.

    maps : channels of the maps.
    """

    low_rank_layers = r".*(first|second|film)"
    memory_format = torch.channels_last_3d

    def __init__(self, channels: int, widths: tuple[int, ...], vector: int, token: int, maps: int):
        told = 4 * widths[0]
        super().__init__(told, vector, token)
        self.sizes = {"out_channels": channels, "block_out_channels": list(widths)}
        self.sizes |= {"vector": vector, "token": token, "maps": maps}
        self.down = nn.ModuleList(_Block(i, o, told) for i, o in pairwise((channels + 1 + maps, *widths)))
        self.up = nn.ModuleList(_Block(low + own, own, told) for own, low in pairwise(widths))
        self.norm = nn.GroupNorm(groups(widths[0]), widths[0])
        self.out = nn.Conv3d(widths[0], channels, 3, padding=1)

    @classmethod
    def build(cls, config: TrainDenoiser, specs: Specs, shape: tuple[int, ...]) -> Self:
        """For (channels, d, px, px).

        Raises
        ------
        HistoloomError
            for data that has no three axes or can't be halved so often, and for maps that are not to be concatenated.
        """
        halved = 2 ** (len(config.channels) - 1)
        if len(shape) != 4 or any(side % halved for side in shape[1:]):
            raise HistoloomError(
                f"train_denoiser.backbone is unet3d, and data of shape {shape} is no volume that can be halved {len(config.channels) - 1} "
                "times: use fewer train_denoiser.channels, or another backbone."
            )
        sizes = sizes_of(specs)
        if sizes["map"] and config.map_input != "concat":
            raise HistoloomError(
                f"A unet3d concatenates maps: set train_denoiser.map_input, {config.map_input}, to concat."
            )
        return cls(shape[0], config.channels, sizes["vector"], sizes["sequence"], sizes["map"])

    def predict(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        told = self.told(times, given, x.dtype)
        depth = x.shape[2]
        heights = torch.linspace(-1, 1, depth, dtype=x.dtype, device=x.device)
        parts = [x, heights[:, None, None].expand(len(x), 1, *x.shape[2:])]
        if given.map is not None:
            parts.append(given.map[:, :, None].expand(-1, -1, depth, -1, -1))
        return self.through(torch.cat(parts, 1), told, F.avg_pool3d)
