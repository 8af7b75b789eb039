"""A distance between pictures in the features of a frozen network, for autoencoders that would else blur."""

from __future__ import annotations

import torch
from torch import nn

from histoloom.conditions.features import IMAGENET, efficientnet_lite0


class PerceptualDistance(nn.Module):
    """Squared distance of unit feature vectors, averaged over pixels and summed over depths (Zhang et al. 2018, LPIPS,
    with all channels weighed alike), in the packaged EfficientNet-Lite0."""

    _BLOCKS = (0, 2, 4)
    """Blocks whose outputs are compared: at a half, a quarter and an eighth of the picture's size."""

    def __init__(self, device: str):
        super().__init__()
        self.network, _ = efficientnet_lite0(device)
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in IMAGENET)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        """A scalar, of two batches (b, 3, h, w) in [-1, 1]."""
        with torch.no_grad():
            wanted = self._features(theirs)
        return sum((a - b).square().sum(1).mean() for a, b in zip(self._features(ours), wanted))

    def _features(self, images: torch.Tensor) -> list[torch.Tensor]:
        network, out = self.network, []
        x = network._swish(network._bn0(network._conv_stem(((images + 1) / 2 - self.mean) / self.std)))
        for number, block in enumerate(network._blocks[: self._BLOCKS[-1] + 1]):
            x = block(x)
            if number in self._BLOCKS:
                out.append(nn.functional.normalize(x, dim=1))
        return out
