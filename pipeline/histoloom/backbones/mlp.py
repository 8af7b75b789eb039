"""A multilayer perceptron for vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from histoloom.backbones.backbone import Specs
from histoloom.backbones.modulated import Modulated, sizes_of
from histoloom.conditions.batch import Conditions
from histoloom.errors import HistoloomError

if TYPE_CHECKING:
    from histoloom.config import TrainDenoiser


class MLP(Modulated):
    """Layers of stated widths over (b, size), each scaled and shifted by what is told.

    size : of the data. vector, token : of the conditions; 0 where there is none.
    """

    low_rank_layers = r".*(layers|film)\.\d+"

    def __init__(self, size: int, widths: tuple[int, ...], vector: int, token: int):
        told = max(widths)
        super().__init__(told, vector, token)
        self.sizes = {"out_channels": size, "block_out_channels": list(widths), "vector": vector, "token": token}
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip((size, *widths), widths))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.film = nn.ModuleList(nn.Linear(told, 2 * width) for width in widths)
        self.out = nn.Linear(widths[-1], size)

    @classmethod
    def build(cls, config: TrainDenoiser, specs: Specs, shape: tuple[int, ...]) -> Self:
        """For (size,).

        Raises
        ------
        HistoloomError
            for data or a condition that has places.
        """
        if len(shape) > 1:
            raise HistoloomError(
                f"train_denoiser.backbone is mlp, and '{config.target.name}' has {len(shape)} axes: take another."
            )
        if maps := [spec.name for spec in specs if spec.shape == "map"]:
            raise HistoloomError(
                f"train_denoiser.conditions has {maps[0]}, a map, which an mlp can't read: take it out."
            )
        sizes = sizes_of(specs)
        return cls(shape[0], config.channels, sizes["vector"], sizes["sequence"])

    @classmethod
    def of(cls, sizes: dict[str, Any]) -> Self:
        return cls(sizes["out_channels"], tuple(sizes["block_out_channels"]), sizes["vector"], sizes["token"])

    def predict(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        told = self.told(times, given, x.dtype)
        for layer, norm, film in zip(self.layers, self.norms, self.film):
            scale, shift = film(told).chunk(2, 1)
            out = nn.functional.silu(norm(layer(x)) * (1 + scale) + shift)
            x = x + out if x.shape == out.shape else out
        return self.out(x).float()
