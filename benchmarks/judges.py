"""Judges of whether a picture shows its condition: trained on real train tiles alone, and never used as a filter."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from histoloom.learners.unet import ThreeLevels

_BATCH = 64


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU(),
        nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU(),
    )  # fmt: skip


class Segmenter(ThreeLevels):
    """Pictures (b, 3, h, w) to logits of nuclei (b, 1, h, w)."""

    def __init__(self, width: int = 24):
        super().__init__(1, width, _block)


class Network(nn.Sequential):
    """Pictures (b, 3, h, w) to `outputs` numbers (b, outputs): class logits, or values."""

    def __init__(self, outputs: int, width: int = 24):
        sizes = (3, width, 2 * width, 4 * width, 8 * width)
        stages = [m for i, o in pairwise(sizes) for m in (_block(i, o), nn.MaxPool2d(2))]
        super().__init__(*stages[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, outputs))


def train_judge(
    make: Callable[[], nn.Module], images: np.ndarray, targets: np.ndarray, loss, steps: int, seed: int
) -> nn.Module:
    """Train on tiles (n, h, w, 3) uint8 and their targets (n, ...), mirrored, blurred and with shifted colours."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        model = make()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    truth = torch.from_numpy(targets)
    model.train()
    for _ in range(steps):
        index = torch.randint(0, len(images), (_BATCH,), generator=generator)
        batch, wanted = to_judge(images[index.numpy()]), truth[index]
        for axis in (2, 3):
            if torch.rand(1, generator=generator) < 0.5:
                batch = batch.flip(axis)
                wanted = wanted.flip(axis - 1) if wanted.ndim > 2 else wanted
        if torch.rand(1, generator=generator) < 0.3:
            batch = F.interpolate(F.avg_pool2d(batch, 2), scale_factor=2, mode="bilinear")
        shift = 0.1 * torch.randn(len(batch), 3, 1, 1, generator=generator)
        value = loss(model(batch * (1 + shift.mean(1, keepdim=True)) + shift), wanted)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.inference_mode()
def judged(model: nn.Module, images: np.ndarray) -> np.ndarray:
    return torch.cat([model(to_judge(images[i : i + _BATCH])) for i in range(0, len(images), _BATCH)]).numpy()


def to_judge(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


def segmentation_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross entropy and soft Dice, half each."""
    logits, truth = logits[:, 0], truth.float()
    chance = logits.sigmoid()
    dice = (2 * (chance * truth).sum((1, 2)) + 1) / (chance.sum((1, 2)) + truth.sum((1, 2)) + 1)
    return F.binary_cross_entropy_with_logits(logits, truth) + (1 - dice).mean()


def difference_interval(difference, groups: np.ndarray, seed: int, rounds: int = 1000) -> list[float]:
    """95 % bootstrap interval of `difference(rows)`, groups drawn with replacement.

    Parameters
    ----------
    difference : indices of rows to a number.
    groups : (n,) what is drawn: tiles of one patient or spot are not independent.
    """
    rng, names = np.random.default_rng(seed), np.unique(groups)
    members = [np.flatnonzero(groups == name) for name in names]
    values = [
        difference(np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))])) for _ in range(rounds)
    ]
    return [float(v) for v in np.nanquantile(values, [0.025, 0.975])]


def agreement(found: np.ndarray, stated: np.ndarray, groups: np.ndarray, seed: int) -> dict:
    """Share of tiles judged to be what was stated; `shuffled` is what it would be were conditions dealt at random."""

    def matched(rows: np.ndarray) -> float:
        return float((found[rows] == stated[rows]).mean())

    def shuffled(rows: np.ndarray) -> float:
        names = np.unique(stated)
        return float(sum((found[rows] == n).mean() * (stated[rows] == n).mean() for n in names))

    everything = np.arange(len(found))
    return {
        "matched": matched(everything),
        "shuffled": shuffled(everything),
        "difference_interval": difference_interval(lambda rows: matched(rows) - shuffled(rows), groups, seed),
    }


def correlation(found: np.ndarray, stated: np.ndarray, groups: np.ndarray, seed: int) -> dict:
    """Mean over programmes (n, k) of the correlation of found with stated; `shuffled` with stated dealt at random."""

    def mean_r(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a - a.mean(0), b - b.mean(0)
        return float(np.mean((a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0) + 1e-12)))

    deal = np.random.default_rng(seed).permutation(len(found))

    def difference(rows: np.ndarray) -> float:
        return mean_r(found[rows], stated[rows]) - mean_r(found[rows], stated[deal][rows])

    return {
        "matched": mean_r(found, stated),
        "shuffled": mean_r(found, stated[deal]),
        "difference_interval": difference_interval(difference, groups, seed),
    }
