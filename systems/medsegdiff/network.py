"""MedSegDiff's network: one encoder reads the noised mask, another the picture, whose features are parsed in Fourier space (Wu et al. 2022)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from torch.nn import functional as F

from histoloom.backbones.backbone import Specs
from histoloom.backbones.modulated import Modulated, ScaledBlock, convolutions, groups, sizes_of
from histoloom.conditions.batch import Conditions

if TYPE_CHECKING:
    from histoloom.config import TrainDenoiser


class FFParser(nn.Module):
    """A 2-D Fourier transform of features, times a learned map of complex numbers, and back (the paper's section 3.3).

    The map is as large as the features of the tiles that it learnt; of tiles of another size it is interpolated.
    """

    def __init__(self, channels: int, px: int):
        super().__init__()
        self.map = nn.Parameter(
            torch.stack([torch.ones(channels, px, px // 2 + 1), torch.zeros(channels, px, px // 2 + 1)])
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frequencies = torch.fft.rfft2(x.float(), norm="ortho")
        own = (
            self.map
            if self.map.shape[-2:] == frequencies.shape[-2:]
            else F.interpolate(self.map, frequencies.shape[-2:])
        )
        return torch.fft.irfft2(frequencies * torch.complex(own[0], own[1]), s=x.shape[-2:], norm="ortho")


class Fusion(nn.Module):
    """The noised mask's features times those of the picture, parsed: x * conv(h) * mean(h), beside x."""

    def __init__(self, channels: int, px: int):
        super().__init__()
        self.parser = FFParser(channels, px)
        self.norm = nn.GroupNorm(groups(channels), channels)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
        h = self.norm(self.parser(picture))
        return x * (1 + self.conv(h) * h.mean(1, keepdim=True)) + h


class MedSegDiff(Modulated):
    """Data (b, channels, px, px) under a map of the picture. maps : the map's channels."""

    def __init__(self, channels: int, widths: tuple[int, ...], maps: int, px: int):
        told = 4 * widths[0]
        super().__init__(told, 0, 0)
        self.sizes = {"out_channels": channels, "block_out_channels": list(widths), "maps": maps, "px": px}
        self.down = nn.ModuleList(ScaledBlock(i, o, told, convolutions(o)) for i, o in pairwise((channels, *widths)))
        self.picture = nn.ModuleList(ScaledBlock(i, o, 0, convolutions(o)) for i, o in pairwise((maps, *widths)))
        self.fusions = nn.ModuleList(Fusion(width, px // 2**level) for level, width in enumerate(widths))
        self.up = nn.ModuleList(ScaledBlock(low + own, own, told, convolutions(own)) for own, low in pairwise(widths))
        self.norm = nn.GroupNorm(groups(widths[0]), widths[0])
        self.out = nn.Conv2d(widths[0], channels, 3, padding=1)

    @classmethod
    def build(cls, config: TrainDenoiser, specs: Specs, shape: tuple[int, ...]) -> Self:
        return cls(shape[0], config.channels, sizes_of(specs)["map"], shape[-1])

    @classmethod
    def of(cls, sizes: dict[str, Any]) -> Self:
        return cls(sizes["out_channels"], tuple(sizes["block_out_channels"]), sizes["maps"], sizes["px"])

    @property
    def multiple(self) -> int:
        return 2 ** len(self.up)

    def predict(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        assert given.map is not None, "the picture is a map"
        told, picture, kept = self.told(times, given, x.dtype), given.map, []
        for number, (block, of_picture, fusion) in enumerate(zip(self.down, self.picture, self.fusions)):
            if number:
                x, picture = F.avg_pool2d(x, 2), F.avg_pool2d(picture, 2)
            picture = of_picture(picture)
            x = fusion(block(x, told), picture)
            kept.append(x)
        for block, own in zip(reversed(self.up), reversed(kept[:-1])):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), own], 1), told)
        return self.out(F.silu(self.norm(x))).float()
