"""A distance between pictures in the features of a frozen network, against the blur of an autoencoder that minimises the absolute error alone."""

from __future__ import annotations

from functools import reduce

import torch
from torch import nn

from histoloom.conditions.efficientnet_lite import IMAGENET, load_efficientnet_lite


class PerceptualDistance(nn.Module):
    """Squared distance of unit feature vectors, averaged over pixels and summed over depths (Zhang et al. 2018, LPIPS,
    with all channels weighed alike), in the packaged EfficientNet-Lite0.

    Three depths are compared: at a half, a quarter and an eighth of the picture's size.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, device: str):
        super().__init__()
        network, _ = load_efficientnet_lite("efficientnet-lite0")
        self.stem = nn.Sequential(network.conv_stem, network.bn1)
        self.stages = nn.ModuleList(network.blocks[:3])
        for name, values in zip(("mean", "std"), IMAGENET):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))
        self.to(device).eval().requires_grad_(False)

    def forward(self, ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        """A scalar, of two batches (b, 3, h, w) in [-1, 1]."""
        with torch.no_grad():
            wanted = self._features(theirs)
        distances = [(a - b).square().sum(1).mean() for a, b in zip(self._features(ours), wanted)]
        return reduce(torch.add, distances)

    def _features(self, images: torch.Tensor) -> list[torch.Tensor]:
        x, out = self.stem(((images + 1) / 2 - self.mean) / self.std), []
        for stage in self.stages:
            x = stage(x)
            out.append(nn.functional.normalize(x, dim=1))
        return out
