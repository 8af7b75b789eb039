"""MedSegDiff-V2's network: a UNet of the picture steers that of the noised mask, first by an anchor, then by a transformer in Fourier
space (Wu et al. 2023)."""

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

_KERNEL, _BANDS = 5, 8


class UNet(nn.Module):
    """Data (b, channels, h, w) to the deepest features, and those of the decoder's last level. told : 0 of one that is told no time."""

    def __init__(self, channels: int, widths: tuple[int, ...], told: int):
        super().__init__()
        self.down = nn.ModuleList(ScaledBlock(i, o, told, convolutions(o)) for i, o in pairwise((channels, *widths)))
        self.up = nn.ModuleList(ScaledBlock(low + own, own, told, convolutions(own)) for own, low in pairwise(widths))

    def encode(self, x: torch.Tensor, told: torch.Tensor | None = None) -> list[torch.Tensor]:
        kept: list[torch.Tensor] = []
        for number, block in enumerate(self.down):
            kept.append(block(F.avg_pool2d(kept[-1], 2) if number else x, told))
        return kept

    def decode(self, kept: list[torch.Tensor], told: torch.Tensor | None = None) -> torch.Tensor:
        x = kept[-1]
        for block, own in zip(reversed(self.up), reversed(kept[:-1])):
            x = block(torch.cat([F.interpolate(x, scale_factor=2.0), own], 1), told)
        return x


class Anchor(nn.Module):
    """The picture's last maps, smoothed by a Gaussian of a learned width where that is more, gate the mask's first features."""

    def __init__(self, channels: int):
        super().__init__()
        self.log_width = nn.Parameter(torch.zeros(()))
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        places = torch.arange(_KERNEL, device=x.device, dtype=x.dtype) - _KERNEL // 2
        line = torch.exp(-(places**2) / (2 * torch.exp(2 * self.log_width)))
        kernel = (line[:, None] * line / line.sum() ** 2).expand(anchor.shape[1], 1, _KERNEL, _KERNEL)
        smooth = F.conv2d(anchor, kernel.to(anchor.dtype), padding=_KERNEL // 2, groups=anchor.shape[1])
        return x + torch.sigmoid(self.conv(torch.maximum(smooth, anchor))) * x


class SpectrumTransformer(nn.Module):
    """Frequencies of one embedding look at those of another, through a band pass that depends on the time."""

    def __init__(self, channels: int, told: int):
        super().__init__()
        self.asks, self.answers = nn.Linear(2 * channels, channels), nn.Linear(2 * channels, channels)
        self.values, self.out = nn.Linear(2 * channels, channels), nn.Linear(channels, 2 * channels)
        self.bands = nn.Linear(told, _BANDS)
        self.norm = nn.GroupNorm(groups(channels), channels)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: torch.Tensor, other: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        asked, known = _tokens(x), _tokens(self.norm(other))
        found = F.scaled_dot_product_attention(self.asks(asked), self.answers(known), self.values(known))
        passed = self.out(found) * self._band_pass(x.shape[-2:], told)[..., None]
        height, width = x.shape[-2], x.shape[-1] // 2 + 1
        real, imaginary = passed.transpose(1, 2).reshape(len(x), -1, height, width).chunk(2, 1)
        return x + torch.fft.irfft2(torch.complex(real.float(), imaginary.float()), s=x.shape[-2:], norm="ortho")

    def _band_pass(self, size: torch.Size, told: torch.Tensor) -> torch.Tensor:
        """(b, frequencies) from 0 to 1, by the radius of a frequency."""
        rows, columns = torch.fft.fftfreq(size[0], device=told.device), torch.fft.rfftfreq(size[1], device=told.device)
        radius = torch.hypot(rows[:, None], columns[None]) / 0.5**0.5
        place = (radius * (_BANDS - 1)).clamp(0, _BANDS - 1).flatten()
        low = place.floor().long().clamp(max=_BANDS - 2)
        gates = torch.sigmoid(self.bands(told))
        return gates[:, low] + (place - low) * (gates[:, low + 1] - gates[:, low])


def _tokens(x: torch.Tensor) -> torch.Tensor:
    """(b, c, h, w) to its frequencies (b, n, 2c)."""
    found = torch.fft.rfft2(x.float(), norm="ortho")
    return torch.cat([found.real, found.imag], 1).flatten(2).transpose(1, 2)


class MedSegDiffV2(Modulated):
    """Data (b, channels, px, px) under a map of the picture. maps : the map's channels."""

    def __init__(self, channels: int, widths: tuple[int, ...], maps: int):
        told = 4 * widths[0]
        super().__init__(told, 0, 0)
        self.sizes = {"out_channels": channels, "block_out_channels": list(widths), "maps": maps}
        self.mask, self.picture = UNet(channels + maps, widths, told), UNet(maps, widths, 0)
        self.anchor = Anchor(widths[0])
        self.to_picture, self.to_mask = (SpectrumTransformer(widths[-1], told) for _ in range(2))
        self.norm = nn.GroupNorm(groups(widths[0]), widths[0])
        self.out = nn.Conv2d(widths[0], channels, 3, padding=1)

    @classmethod
    def build(cls, config: TrainDenoiser, specs: Specs, shape: tuple[int, ...]) -> Self:
        return cls(shape[0], config.channels, sizes_of(specs)["map"])

    @classmethod
    def of(cls, sizes: dict[str, Any]) -> Self:
        return cls(sizes["out_channels"], tuple(sizes["block_out_channels"]), sizes["maps"])

    @property
    def multiple(self) -> int:
        return 2 ** len(self.mask.up)

    def predict(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        assert given.map is not None, "the picture is a map"
        told = self.told(times, given, x.dtype)
        of_picture = self.picture.encode(given.map)
        kept = self.mask.encode(torch.cat([x, given.map], 1), told)
        kept[0] = self.anchor(kept[0], self.picture.decode(of_picture))
        known = self.to_picture(of_picture[-1], kept[-1], told)
        kept[-1] = self.to_mask(kept[-1], known, told)
        return self.out(F.silu(self.norm(self.mask.decode(kept, told)))).float()
