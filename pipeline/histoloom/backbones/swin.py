"""A UNet of transformer blocks in shifted windows (Liu et al. 2021, Swin), with a token of the time in every window (He et al. 2023,
ArtiFusion)."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from torch.nn import functional as F

from histoloom.backbones.backbone import Specs
from histoloom.backbones.modulated import Modulated, sizes_of
from histoloom.conditions.batch import Conditions
from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from histoloom.config import TrainDenoiser

WINDOW = 4
"""Patches along a window's side."""
_SHIFT = WINDOW // 2
_PATCHES, _APART = WINDOW**2, (2 * WINDOW - 1) ** 2
"""Patches of a window, and how many ways two of them can lie to each other."""


class Attention(nn.Module):
    """Attention within windows, whose patches and token read one another.

    told : width of what the token is made of.
    """

    place: torch.Tensor

    def __init__(self, channels: int, heads: int, told: int):
        super().__init__()
        self.heads = heads
        self.token = nn.Linear(told, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.empty(heads, _APART + 3))
        nn.init.trunc_normal_(self.bias, std=0.02)
        self.register_buffer("place", _places(), persistent=False)

    def forward(self, x: torch.Tensor, told: torch.Tensor, shifted: bool) -> torch.Tensor:
        """(b, h, w, c) to the same."""
        b, h, w, c = x.shape
        cut = x.view(b, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c).transpose(2, 3).reshape(b, -1, _PATCHES, c)
        token = self.token(told)[:, None, None].expand(-1, cut.shape[1], -1, -1)
        queries, keys, values = self.qkv(torch.cat([cut, token], 2)).view(
            b, -1, _PATCHES + 1, 3, self.heads, c // self.heads
        ).permute(3, 0, 1, 4, 2, 5)  # fmt: skip
        bias = self.bias[:, self.place]
        if shifted:
            bias = torch.where(_together(h, w, x.device)[:, None], bias, -torch.inf)
        out = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias.to(queries.dtype))
        out = self.project(out.transpose(2, 3).flatten(3)[:, :, :_PATCHES])
        return out.view(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, c).transpose(2, 3).reshape(b, h, w, c)


def _places() -> torch.Tensor:
    """Which bias a query (row) has for a key: one for each offset in a window, then of patch to token, token to patch and token to itself."""
    y, x = (axis.flatten() for axis in torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij"))
    offset = [axis[:, None] - axis[None] + WINDOW - 1 for axis in (y, x)]
    out = torch.full((_PATCHES + 1, _PATCHES + 1), _APART)
    out[:_PATCHES, :_PATCHES] = offset[0] * (2 * WINDOW - 1) + offset[1]
    out[_PATCHES, :_PATCHES], out[_PATCHES, _PATCHES] = _APART + 1, _APART + 2
    return out


def _together(h: int, w: int, device: torch.device) -> torch.Tensor:
    """Of each window of a picture that was rolled by a shift: which of its tokens may read which, (windows, tokens, tokens) bool.

    Where a window joins opposite borders of the picture, patches read those of their own side alone.
    """
    rows, columns = ((torch.arange(side, device=device) >= side - _SHIFT).long() for side in (h, w))
    side = (2 * rows[:, None] + columns).view(h // WINDOW, WINDOW, w // WINDOW, WINDOW).transpose(1, 2)
    own = side.reshape(-1, _PATCHES)
    return F.pad(own[:, :, None] == own[:, None], (0, 1, 0, 1), value=True)


class _Block(nn.Module):
    """Attention and a perceptron, each after a norm and beside a shortcut."""

    def __init__(self, channels: int, heads: int, told: int, shifted: bool):
        super().__init__()
        self.shifted = shifted
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.attention = Attention(channels, heads, told)
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))

    def forward(self, x: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        shifted = self.shifted and max(x.shape[1:3]) > WINDOW  # a single window has nothing beside it
        normed = self.norms[0](x)
        if shifted:
            normed = normed.roll((-_SHIFT, -_SHIFT), (1, 2))
        read = self.attention(normed, told, shifted)
        x = x + (read.roll((_SHIFT, _SHIFT), (1, 2)) if shifted else read)
        return x + self.mlp(self.norms[1](x))


class _Stage(nn.Module):
    """A block in windows and one in shifted windows, (b, c, h, w) to the same."""

    def __init__(self, channels: int, head: int, told: int):
        super().__init__()
        heads = max(n for n in range(1, max(1, channels // head) + 1) if channels % n == 0)
        self.blocks = nn.ModuleList(_Block(channels, heads, told, shifted) for shifted in (False, True))

    def forward(self, x: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x, told)
        return x.permute(0, 3, 1, 2)


class Swin(Modulated):
    """Data (b, channels, h, w), with maps concatenated. A patch is one pixel of the data. Each level has a stage on the way down and one
    on the way up; the coarsest has one.

    head : channels of an attention head. maps : channels of the maps.
    """

    low_rank_layers = r".*\.(qkv|project|token|mlp\.[02])"

    def __init__(self, channels: int, widths: tuple[int, ...], head: int, told_by: tuple[int, int], maps: int):
        told = 4 * widths[0]
        super().__init__(told, *told_by)
        self.sizes = {"out_channels": channels, "block_out_channels": list(widths), "attention_head_dim": head}
        self.sizes |= {"vector": told_by[0], "token": told_by[1], "maps": maps}
        self.embed = nn.Conv2d(channels + maps, widths[0], 3, padding=1)
        self.down = nn.ModuleList(_Stage(width, head, told) for width in widths)
        self.merge = nn.ModuleList(nn.Conv2d(own, low, 2, stride=2) for own, low in pairwise(widths))
        self.expand = nn.ModuleList(nn.ConvTranspose2d(low, own, 2, stride=2) for own, low in pairwise(widths))
        self.join = nn.ModuleList(nn.Conv2d(2 * own, own, 1) for own in widths[:-1])
        self.up = nn.ModuleList(_Stage(width, head, told) for width in widths[:-1])
        self.norm = nn.GroupNorm(1, widths[0])
        self.out = nn.Conv2d(widths[0], channels, 3, padding=1)

    @classmethod
    def build(cls, config: TrainDenoiser, specs: Specs, shape: tuple[int, ...]) -> Self:
        """For (channels, px, px).

        Raises
        ------
        HistoloomError
            for data that windows do not fill at each level, and for maps that are not to be concatenated.
        """
        multiple = WINDOW * 2 ** (len(config.channels) - 1)
        if len(shape) != 3 or shape[-1] % multiple:
            raise HistoloomError(
                f"train_denoiser.backbone is swin, and the sides of data of shape {shape} are no multiples of {multiple}: use fewer "
                "train_denoiser.channels, or another backbone."
            )
        sizes = sizes_of(specs)
        if sizes["map"] and config.map_input != "concat":
            raise HistoloomError(
                f"A swin concatenates maps: set train_denoiser.map_input, {config.map_input}, to concat."
            )
        told_by = sizes["vector"], sizes["sequence"]
        return cls(shape[0], config.channels, config.attention_head_dim, told_by, sizes["map"])

    @classmethod
    def of(cls, sizes: dict[str, Any]) -> Self:
        widths, told_by = tuple(sizes["block_out_channels"]), (sizes["vector"], sizes["token"])
        return cls(sizes["out_channels"], widths, sizes["attention_head_dim"], told_by, sizes["maps"])

    @property
    def taps(self) -> tuple[str, ...]:
        """The coarsest stage, and those on the way up."""
        levels = len(self.up)
        return (f"down.{levels}", *(f"up.{number}" for number in reversed(range(levels))))

    @property
    def multiple(self) -> int:
        return WINDOW * 2 ** len(self.up)

    def predict(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        told = self.told(times, given, x.dtype)
        x = self.embed(x if given.map is None else torch.cat([x, given.map], 1))
        kept = []
        for number, stage in enumerate(self.down):
            x = stage(self.merge[number - 1](x) if number else x, told)
            kept.append(x)
        for number in reversed(range(len(self.up))):
            x = self.join[number](torch.cat([self.expand[number](x), kept[number]], 1))
            x = self.up[number](x, told)
        return self.out(F.silu(self.norm(x))).float()
