"""Objects that touch are told apart by broken symmetry: noise decides which of two maps an object goes to, and goes there whole.

Two maps start as noise. In training an object belongs to the map whose noise sums higher over it, and the network learns, from the picture,
the foreground and a mixture of noise and answer, to which. Objects that touch fall to the same map half of the time. So the split is done
again within each map, with new noise, until hardly any two that touch are left together.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import label
from torch.nn import functional as F

from histoloom.backbones.r2unet import R2UNet
from histoloom.conditions.batch import Conditions
from histoloom.learners.networks import drawn, to_unit
from histoloom.training.loop import train
from histoloom.training.run import TrainingRun, epoch_order

_WIDTHS, _TIMES = (16, 32, 64), 1000
ROUNDS, STEPS = 4, 6
"""How often maps are split again, and the steps of each split."""
_BATCH, _LEAST_PX, _STRAY = 64, 4, 0.1
"""Tiles at once; objects that are smaller are specks; a share of a part that is smaller was sent astray."""


@dataclass(frozen=True)
class Splitter:
    """network : two maps, given the picture and the foreground, to the logits of the two."""

    network: R2UNet

    @classmethod
    def fit(cls, images: np.ndarray, instances: np.ndarray, run: TrainingRun, batch_size: int) -> Splitter:
        """Learn from tiles (n, h, w, 3) uint8 and the numbers of their objects (n, h, w)."""
        network = drawn(lambda: R2UNet(2, _WIDTHS, 0, 0, 4), run)
        numbers = torch.from_numpy(instances.astype(np.int64))

        def loss(step: int, generator: torch.Generator):
            index = epoch_order(run.seed, len(images), batch_size, step)
            shown, own = to_unit(images[index.numpy()], run.device), numbers[index]
            noise = torch.randn((len(own), 2, *own.shape[1:]), generator=generator)
            kept = (
                torch.rand(len(own), generator=generator) < 0.5
            )  # half of the time some objects are gone, as in later rounds
            gone = torch.rand((len(own), int(own.max()) + 1), generator=generator) < 0.5
            own = torch.where(gone.gather(1, own.flatten(1)).view_as(own) & kept[:, None, None], 0, own)
            target = broken(own, noise)
            level = torch.rand(len(own), generator=generator)
            x = _mixed(target, noise, level[:, None, None, None])
            logits = network(x, (level * (_TIMES - 1)).round().long(), _given(shown, own > 0))
            inside = (own > 0).float()
            error = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)
            return (error * inside).sum() / inside.sum().clamp(min=1), {}

        train(network, loss, run)
        network.eval().requires_grad_(False)
        return cls(network)

    @torch.inference_mode()
    def split(self, images: np.ndarray, foreground: np.ndarray, seed: int = 0) -> np.ndarray:
        """Tiles (n, h, w, 3) uint8 and their foreground (n, h, w) bool to numbers of objects (n, h, w) int32."""
        parts = [
            self._split(images[i : i + _BATCH], foreground[i : i + _BATCH], seed + i)
            for i in range(0, len(images), _BATCH)
        ]
        return np.concatenate(parts) if parts else np.zeros(foreground.shape, np.int32)

    def _split(self, images: np.ndarray, foreground: np.ndarray, seed: int) -> np.ndarray:
        generator, shown = torch.Generator().manual_seed(seed), to_unit(images, "cpu")
        codes = np.where(foreground, 1, 0)
        for _ in range(ROUNDS):
            before, codes = codes, np.zeros_like(codes)
            for number in np.unique(before[before > 0]):
                own = before == number
                halves = self._halves(shown, torch.from_numpy(own), generator)
                halves = np.stack([_whole(of, half) for of, half in zip(own, halves)])
                codes = np.where(own, 2 * number + halves, codes)
        return np.stack([_objects(of) for of in codes])

    def _halves(self, shown: torch.Tensor, own: torch.Tensor, generator: torch.Generator) -> np.ndarray:
        """To which of the two maps each pixel goes, (n, h, w)."""
        noise = torch.randn((len(own), 2, *own.shape[1:]), generator=generator)
        given, answer = _given(shown, own), torch.zeros_like(noise)
        for step in range(STEPS):
            level = torch.full((len(own),), step / STEPS)
            x = _mixed(answer, noise, level[:, None, None, None])
            logits = self.network(x, (level * (_TIMES - 1)).round().long(), given)
            answer = logits.sigmoid() * own[:, None]
        return answer.argmax(1).numpy()


def broken(numbers: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Numbers of objects (b, h, w) and noise (b, 2, h, w) to two maps: each object whole in that whose noise sums higher over it."""
    flat = numbers.flatten(1)
    sums = torch.zeros((len(numbers), 2, int(numbers.max()) + 1))
    sums.scatter_add_(2, flat[:, None].expand(-1, 2, -1), noise.flatten(2))
    first = (sums[:, 0] >= sums[:, 1]).gather(1, flat).view_as(numbers) & (numbers > 0)
    return torch.stack([first, (numbers > 0) & ~first], 1).float()


def _mixed(target: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """x_t = t target + (1 - t) noise"""
    return level * target + (1 - level) * noise


def _given(shown: torch.Tensor, foreground: torch.Tensor) -> Conditions:
    return Conditions(map=torch.cat([2 * shown - 1, foreground[:, None].float()], 1))


def _whole(own: np.ndarray, halves: np.ndarray) -> np.ndarray:
    """What goes to which map (h, w): a connected part of which nearly all goes to one goes there whole."""
    parts, found = label(own)
    shares = np.bincount(parts.ravel(), halves.ravel(), found + 1) / np.maximum(np.bincount(parts.ravel()), 1)
    settled = (shares < _STRAY) | (shares > 1 - _STRAY)
    return np.where(settled[parts], shares[parts] > 0.5, halves).astype(halves.dtype)


def _objects(codes: np.ndarray) -> np.ndarray:
    """Codes (h, w) to numbers of objects: connected pixels of one code; specks go to what they touch most."""
    out, count = np.zeros(codes.shape, np.int32), 0
    for code in np.unique(codes[codes > 0]):
        numbers, found = label(codes == code)
        out, count = np.where(numbers > 0, numbers + count, out), count + found
    return _without_specks(out)


def _without_specks(numbers: np.ndarray) -> np.ndarray:
    areas = np.bincount(numbers.ravel())
    for number in np.flatnonzero((areas > 0) & (areas < _LEAST_PX)):
        if number == 0:
            continue
        own = numbers == number
        grown = np.pad(own, 1)
        around = (grown[:-2, 1:-1] | grown[2:, 1:-1] | grown[1:-1, :-2] | grown[1:-1, 2:]) & ~own
        beside = numbers[around & (numbers > 0)]
        if len(beside):
            numbers = np.where(own, np.bincount(beside).argmax(), numbers)
    return numbers.astype(np.int32)


def run_of(steps: int, seed: int, work: Path) -> TrainingRun:
    return TrainingRun("splitter", steps, 2e-3, seed, work, max(1, steps // 4), warmup_steps=steps // 10)
