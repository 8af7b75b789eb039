"""A patch critic (PatchGAN) that is trained beside an autoencoder, against the blur that a perceptual distance leaves."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F


class PatchCritic(nn.Module):
    """Pictures (b, 3, h, w) in [-1, 1] to a score for each patch of 18 px, high where it looks real (Isola et al. 2017)."""

    def __init__(self, width: int = 32):
        super().__init__()
        sizes = ((3, width, 4, 2), (width, 2 * width, 4, 2), (2 * width, 4 * width, 3, 1), (4 * width, 1, 1, 1))
        layers = [nn.Conv2d(i, o, side, stride, side // 2) for i, o, side, stride in sizes]
        self.layers = nn.Sequential(*(m for layer in layers for m in (layer, nn.LeakyReLU(0.2))))[:-1]

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.layers(pictures)

    def losses(self, rebuilt: torch.Tensor, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The critic's loss and the autoencoder's, both scalars (hinge loss; Lim & Ye 2017).

        Each has gradients for its own network's weights alone.
        """
        own = F.relu(1 - self(pictures)).mean() + F.relu(1 + self(rebuilt.detach())).mean()
        frozen = {name: value.detach() for name, value in self.named_parameters()}
        return own, -functional_call(self, frozen, (rebuilt,)).mean()
