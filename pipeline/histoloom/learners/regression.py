"""A U-Net from picture to picture, fitted by its mean absolute error: what diffusion must beat where something is restored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from histoloom.learners.networks import BATCH, drawn, to_unit
from histoloom.learners.unet import Small
from histoloom.training.loop import train
from histoloom.training.run import TrainingRun, epoch_order


class _Residual(nn.Module):
    """Pictures (b, 3, h, w) in [0, 1], sides multiples of 4, to the same: what is added to them is learnt."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Small(2)  # three outputs

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + self.network(images)


@dataclass(frozen=True)
class Regression:
    """A fitted network."""

    model: nn.Module
    device: str

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, h, w, 3) uint8 to the same."""
        parts = [
            self.model(to_unit(images[i : i + BATCH], self.device)).clamp(0, 1).cpu()
            for i in range(0, len(images), BATCH)
        ]
        return (torch.cat(parts).permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()


def fit_regression(before: np.ndarray, after: np.ndarray, run: TrainingRun, batch_size: int) -> Regression:
    """Fit to pairs of tiles (n, h, w, 3) uint8, mirrored and turned together."""
    model = drawn(_Residual, run)

    def loss(step: int, generator: torch.Generator):
        index = epoch_order(run.seed, len(before), batch_size, step).numpy()
        pair = torch.cat([to_unit(tiles[index], run.device) for tiles in (before, after)])
        for axis in (2, 3):
            if torch.rand((), generator=generator) < 0.5:
                pair = pair.flip(axis)
        shown, wanted = pair.rot90(int(torch.randint(0, 4, (), generator=generator)), (2, 3)).chunk(2)
        return (model(shown) - wanted).abs().mean(), {}

    train(model, loss, run)
    model.eval().requires_grad_(False)
    return Regression(model, run.device)
