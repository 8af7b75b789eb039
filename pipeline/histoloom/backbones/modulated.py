"""Networks whose layers are scaled and shifted by what the time, the vector and the mean token of the sequence say (Perez et al. 2018,
FiLM)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors.torch import save_file
from torch import nn

from histoloom.backbones.backbone import Backbone, Specs
from histoloom.backbones.unet import WEIGHTS, load_weights
from histoloom.conditions.batch import Conditions
from histoloom.config.package import read_json
from histoloom.data.commit import write_json

if TYPE_CHECKING:
    from histoloom.config.denoiser_record import DenoiserRecord


class Modulated(Backbone):
    """told : width of what is said. vector, token : sizes of the conditions; 0 where there is none.

    sizes : what `config.json` holds, to build the network again.
    """

    sizes: dict[str, Any]

    def __init__(self, told: int, vector: int, token: int):
        super().__init__()
        from diffusers.models.embeddings import TimestepEmbedding, Timesteps

        self.waves = Timesteps(64, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time = TimestepEmbedding(64, told)
        self.vector = nn.Linear(vector, told) if vector else None
        self.token = nn.Linear(token, told) if token else None

    def told(self, times: torch.Tensor, given: Conditions, dtype: torch.dtype) -> torch.Tensor:
        """(b, told)"""
        told = self.time(self.waves(times).to(dtype))
        if self.vector is not None and given.vector is not None:
            told = told + self.vector(given.vector)
        if self.token is not None and given.sequence is not None and given.sequence_mask is not None:
            weights = given.sequence_mask[..., None].to(given.sequence.dtype)
            told = told + self.token((given.sequence * weights).sum(1) / weights.sum(1))
        return nn.functional.silu(told)

    @classmethod
    @abstractmethod
    def of(cls, sizes: dict[str, Any]) -> Self:
        """A network of these sizes, its weights drawn."""

    @classmethod
    def load(cls, source: str | Path, record: DenoiserRecord | None = None, revision: str | None = None) -> Self:
        made = cls.of(read_json(Path(source) / "config.json"))
        load_weights(made, source)
        return made

    @property
    def channels(self) -> int:
        return self.sizes["out_channels"]

    def save(self, folder: Path) -> None:
        write_json(folder / "config.json", {"_class_name": type(self).__name__, **self.sizes})
        save_file({name: value.cpu().contiguous() for name, value in self.state_dict().items()}, folder / WEIGHTS)


class Levels(Modulated):
    """A UNet with one block a level on the way down and one on the way up, whose data are halved between levels."""

    down: nn.ModuleList
    up: nn.ModuleList
    norm: nn.GroupNorm
    out: nn.Module

    @classmethod
    def of(cls, sizes: dict[str, Any]) -> Self:
        widths = tuple(sizes["block_out_channels"])
        return cls(sizes["out_channels"], widths, sizes["vector"], sizes["token"], sizes["maps"])  # type: ignore[call-arg,arg-type]

    @property
    def multiple(self) -> int:
        return 2 ** len(self.up)

    def through(
        self, x: torch.Tensor, told: torch.Tensor, halved: Callable[[torch.Tensor, int], torch.Tensor]
    ) -> torch.Tensor:
        """Data, with maps beside them, through all levels. halved : what takes the mean over so many pixels a side."""
        kept = list[torch.Tensor]()
        for number, block in enumerate(self.down):
            x = block(halved(x, 2) if number else x, told)
            kept.append(x)
        for block, own in zip(reversed(self.up), reversed(kept[:-1])):
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2.0), own], 1), told)
        return self.out(nn.functional.silu(self.norm(x))).float()


class ScaledBlock(nn.Module):
    """A 1 x 1 convolution, normalised, scaled and shifted by what is told, and layers beside it.

    told : width of what is told; 0 of a block that is told nothing. units : data of `out` channels to the same.
    """

    def __init__(self, channels: int, out: int, told: int, units: nn.Module):
        super().__init__()
        self.shortcut = nn.Conv2d(channels, out, 1)
        self.norm = nn.GroupNorm(groups(out), out)
        self.film = nn.Linear(told, 2 * out) if told else None
        self.units = units

    def forward(self, x: torch.Tensor, told: torch.Tensor | None = None) -> torch.Tensor:
        x = self.shortcut(x)
        normed = self.norm(x)
        if self.film is not None:
            assert told is not None
            scale, shift = self.film(told)[..., None, None].chunk(2, 1)
            normed = normed * (1 + scale) + shift
        return x + self.units(normed)


def convolutions(channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions after their non-linearities, a norm between them."""
    return nn.Sequential(
        nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1), nn.GroupNorm(groups(channels), channels), nn.SiLU(),
        nn.Conv2d(channels, channels, 3, padding=1),
    )  # fmt: skip


def groups(channels: int) -> int:
    """As many groups of at least four channels as divide them, 32 at most."""
    return max(g for g in range(1, min(32, max(1, channels // 4)) + 1) if channels % g == 0)


def sizes_of(specs: Specs) -> dict[str, int]:
    """How many numbers the vectors, the tokens and the maps have."""
    return {kind: sum(s.size for s in specs if s.shape == kind) for kind in ("vector", "sequence", "map")}
