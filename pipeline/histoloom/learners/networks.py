"""Networks fitted to tiles by the one training loop: of labels by cross entropy, of masks by cross entropy and soft Dice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from histoloom.conditions.efficientnet_lite import IMAGENET
from histoloom.config.learners import MaskLoss
from histoloom.data.store import UNKNOWN
from histoloom.learners.augmentation import augmented, mixed
from histoloom.learners.learner import Training
from histoloom.training.loop import train
from histoloom.training.run import Numbers, TrainingRun

Network = TypeVar("Network", bound=nn.Module)
_FOCAL_GAMMA = 2.0
BATCH = 64
"""Of tiles that are predicted together."""


class ImageNetInputs(nn.Module):
    """Pictures (b, 3, h, w) in [0, 1] normalised as ImageNet's networks take them."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), IMAGENET):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        return (images - self.mean) / self.std


def keep_norms(module: nn.Module) -> None:
    """Let batch norms keep the statistics that they came with: a few hundred steps give them no better."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def drawn(make: Callable[[], Network], run: TrainingRun) -> Network:
    """A network whose new weights depend on the run's seed alone, on its device."""
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(run.seed)
        return make().to(run.device)


def fit_labels(model: nn.Module, images: np.ndarray, truth: np.ndarray, training: Training, px: int | None) -> None:
    """Train on class numbers (n,), classes drawn alike often.

    Parameters
    ----------
    model : pictures (b, 3, h, w) in [0, 1] to logits (b, classes).
    px : side that tiles are resized to; None leaves them as they are.
    """
    batch_of = label_batches(images, truth, training, px)

    def loss(step: int, generator: torch.Generator):
        batch, labels = batch_of(step, generator)
        if training.augmentation == "strong":
            batch, labels = mixed(batch, labels, len(training.classes), generator)
        return F.cross_entropy(model(batch).float(), labels), {}

    train(model, loss, training.run)
    model.eval().requires_grad_(False)


def label_batches(
    images: np.ndarray, truth: np.ndarray, training: Training, px: int | None
) -> Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]:
    """A step and its generator to pictures (b, 3, h, w) in [0, 1] and class numbers (b,), classes drawn alike often."""
    device, labels = training.run.device, torch.from_numpy(truth)
    extra = np.zeros(len(truth), bool) if training.extra is None else training.extra
    chances = {
        turn: _alike(truth, turn, len(training.classes), extra, training.extra_share)
        for turn in {training.turn(s, len(truth)) for s in (0, training.run.steps)}
    }

    def batch_of(step: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        chance = chances[training.turn(step, len(truth))]
        index = torch.multinomial(chance, training.batch_size, replacement=True, generator=generator)
        batch = to_unit(images[index.numpy()], device, px)
        return augmented(batch, generator, how=training.augmentation)[0], labels[index].to(device)

    return batch_of


def _alike(truth: np.ndarray, turn: range, classes: int, extra: np.ndarray, share: float) -> torch.Tensor:
    """Chances (n,) by which the classes of the tiles of a turn are drawn alike often, and in each class that has both kinds of tiles this share of
    extra ones."""
    chance, own = np.zeros(len(truth)), slice(turn.start, turn.stop)
    group = 2 * truth[own] + extra[own]
    counts = np.bincount(group, minlength=2 * classes).reshape(classes, 2)
    both = (counts > 0).all(1, keepdims=True)
    wanted = np.where(both, [1 - share, share], counts / np.maximum(counts.sum(1, keepdims=True), 1))
    chance[own] = (wanted / np.maximum(counts, 1)).reshape(-1)[group]
    return torch.from_numpy(chance)


def fit_masks(
    model: nn.Module, images: np.ndarray, masks: np.ndarray, training: Training, loss_of: MaskLoss = "dice"
) -> None:
    """Train on class ids (n, h, w), of which `UNKNOWN` counts nothing.

    Parameters
    ----------
    model : pictures (b, 3, h, w) in [0, 1] to logits (b, classes + 1, h, w).
    """
    run, measured = training.run, {"dice": dice_loss, "structure": structure_loss}[loss_of]

    def loss(step: int, generator: torch.Generator):
        index = training.batch(step, len(images)).numpy()
        batch, truth = to_unit(images[index], run.device), torch.from_numpy(masks[index]).to(run.device).long()
        batch, truth = augmented(batch, generator, truth, training.augmentation)
        return measured(model(batch).float(), truth)

    train(model, loss, run)
    model.eval().requires_grad_(False)


def dice_loss(logits: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, Numbers]:
    """Cross entropy plus soft Dice over the classes (Milletari et al. 2016, eq. 1, unsquared)."""
    wanted = _one_hot(truth, logits.shape[1])[:, 1:]
    chance = logits.softmax(1)[:, 1:] * (truth != UNKNOWN)[:, None]
    both = (chance * wanted).sum((0, 2, 3))
    overlap = (2 * both + 1) / (chance.sum((0, 2, 3)) + wanted.sum((0, 2, 3)) + 1)
    return F.cross_entropy(logits, truth, ignore_index=UNKNOWN) + 1 - overlap.mean(), {"dice": overlap.detach().mean()}


def structure_loss(logits: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, Numbers]:
    """1 - SSIM of the classes' probabilities, plus the focal loss (Lin et al. 2017, gamma 2)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    known = (truth != UNKNOWN)[:, None]
    chance, wanted = logits.softmax(1) * known, _one_hot(truth, logits.shape[1])
    alike = structural_similarity_index_measure(chance, wanted, data_range=1.0)
    assert isinstance(alike, torch.Tensor)
    right = (chance * wanted).sum(1).clamp(min=1e-6)
    focal = ((1 - right) ** _FOCAL_GAMMA * -right.log() * known[:, 0]).sum() / known.sum().clamp(min=1)
    return 1 - alike + focal, {"ssim": alike.detach()}


def _one_hot(truth: torch.Tensor, count: int) -> torch.Tensor:
    """Class ids (b, h, w) to (b, count, h, w) float; nothing where they are unknown."""
    known = truth != UNKNOWN
    return (F.one_hot(truth * known, count).movedim(-1, 1) * known[:, None]).float()


@torch.inference_mode()
def probabilities(model: nn.Module, images: np.ndarray, device: str, px: int | None) -> np.ndarray:
    """(n, classes) of tiles (n, h, w, 3) uint8."""
    parts = [model(to_unit(images[i : i + BATCH], device, px)).softmax(1).cpu() for i in range(0, len(images), BATCH)]
    return torch.cat(parts).numpy()


@torch.inference_mode()
def mask_chances(model: nn.Module, images: np.ndarray, device: str) -> np.ndarray:
    """(n, classes + 1, h, w) float32 of tiles (n, h, w, 3) uint8."""
    parts = [
        model(to_unit(images[i : i + BATCH], device)).float().softmax(1).cpu() for i in range(0, len(images), BATCH)
    ]
    return torch.cat(parts).numpy()


@torch.inference_mode()
def class_ids(model: nn.Module, images: np.ndarray, device: str) -> np.ndarray:
    """(n, h, w) uint8 of tiles (n, h, w, 3) uint8."""
    found = [
        model(to_unit(images[i : i + BATCH], device)).argmax(1).to(torch.uint8).cpu().numpy()
        for i in range(0, len(images), BATCH)
    ]
    return np.concatenate(found) if found else np.empty(images.shape[:3], np.uint8)


def to_unit(images: np.ndarray, device: str, px: int | None = None) -> torch.Tensor:
    """(n, h, w, 3) uint8 to (n, 3, h, w) in [0, 1], or (n, 3, px, px)."""
    values = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 255
    return values if px is None else F.interpolate(values, size=(px, px), mode="bilinear", antialias=True)
