"""A convolutional UNet of recurrent residual units (Alom et al. 2018, R2U-Net)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Self

import torch
from torch import nn
from torch.nn import functional as F

from histoloom.backbones.backbone import Specs
from histoloom.backbones.modulated import Levels, ScaledBlock, groups, sizes_of
from histoloom.conditions.batch import Conditions
from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from histoloom.config import TrainDenoiser

_TIMES = 2
"""How often a unit's convolution is applied."""


class _Unit(nn.Module):
    """x_1 = f(x), x_{i+1} = f(x + x_i): one convolution, its weights shared by all i."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(groups(channels), channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.silu(self.norm(self.conv(x)))
        for _ in range(_TIMES - 1):
            out = F.silu(self.norm(self.conv(x + out)))
        return out


def _block(channels: int, out: int, told: int) -> ScaledBlock:
    return ScaledBlock(channels, out, told, nn.Sequential(_Unit(out), _Unit(out)))


class R2UNet(Levels):
    """Data (b, channels, h, w), with maps concatenated. Each level has one block on the way down and one on the way up.

    maps : channels of the maps.
    """

    low_rank_layers = r".*(conv|shortcut|film)"

    def __init__(self, channels: int, widths: tuple[int, ...], vector: int, token: int, maps: int):
        told = 4 * widths[0]
        super().__init__(told, vector, token)
        self.sizes = {"out_channels": channels, "block_out_channels": list(widths)}
        self.sizes |= {"vector": vector, "token": token, "maps": maps}
        self.down = nn.ModuleList(_block(i, o, told) for i, o in pairwise((channels + maps, *widths)))
        self.up = nn.ModuleList(_block(low + own, own, told) for own, low in pairwise(widths))
        self.norm = nn.GroupNorm(groups(widths[0]), widths[0])
        self.out = nn.Conv2d(widths[0], channels, 3, padding=1)

    @classmethod
    def build(cls, config: TrainDenoiser, specs: Specs, shape: tuple[int, ...]) -> Self:
        """For (channels, px, px).

        Raises
        ------
        HistoloomError
            for data that has no two axes or can't be halved so often, and for maps that are not to be concatenated.
        """
        if len(shape) != 3 or shape[-1] % 2 ** (len(config.channels) - 1):
            raise HistoloomError(
                f"train_denoiser.backbone is r2unet, and data of shape {shape} can't be halved {len(config.channels) - 1} times: use "
                "fewer train_denoiser.channels, or another backbone."
            )
        sizes = sizes_of(specs)
        if sizes["map"] and config.map_input != "concat":
            raise HistoloomError(
                f"An r2unet concatenates maps: set train_denoiser.map_input, {config.map_input}, to concat."
            )
        return cls(shape[0], config.channels, sizes["vector"], sizes["sequence"], sizes["map"])

    @property
    def taps(self) -> tuple[str, ...]:
        """The blocks on the way up."""
        return tuple(f"up.{number}" for number in reversed(range(len(self.up))))

    def predict(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        told = self.told(times, given, x.dtype)
        if given.map is not None:
            x = torch.cat([x, given.map], 1)
        return self.through(x, told, F.avg_pool2d)
