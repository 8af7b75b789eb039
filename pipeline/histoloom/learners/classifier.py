"""The classifiers that are trained: EfficientNet-Lite0 from ImageNet's weights, or a net of timm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from histoloom.conditions.efficientnet_lite import IMAGENET, load_efficientnet_lite
from histoloom.config import Uplift
from histoloom.errors import HistoloomError
from histoloom.training.loop import TrainingRun, train

_BATCH = 64
_STAIN_SHIFT = 0.08
_DROP_PATH = 0.2
"""Of stochastic depth, as EfficientNet-Lite was trained."""


class Classifier(nn.Module):
    """Pictures (b, 3, h, w) in [0, 1] to logits (b, classes).

    kind : 'efficientnet-lite0', with ImageNet's weights, or 'timm:NAME', without.
    """

    mean: torch.Tensor
    std: torch.Tensor
    network: nn.Module

    def __init__(self, kind: str, classes: int):
        super().__init__()
        self.kind = kind
        if kind == "efficientnet-lite0":
            network, _ = load_efficientnet_lite(kind, drop_path=_DROP_PATH)
            network.reset_classifier(classes)
            self.network = network
        else:
            import timm

            self.network = timm.create_model(kind.removeprefix("timm:"), num_classes=classes)
        for name, values in zip(("mean", "std"), IMAGENET):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> Classifier:
        """The norms of a net that brings its own keep ImageNet's statistics: a few hundred steps give them no better."""
        super().train(mode)
        if self.kind == "efficientnet-lite0":
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network((images - self.mean) / self.std)


def training_run(config: Uplift, seed: int, work: Path, device: str) -> TrainingRun:
    """What every model of the experiment is asked to do, whatever it learns."""
    steps = config.steps
    return TrainingRun("uplift", steps, config.rate, seed, work, steps, warmup_steps=steps // 10, device=device)


def train_classifier(
    images: np.ndarray, truth: np.ndarray, classes: int, config: Uplift, run: TrainingRun, *, augment: bool
) -> Classifier:
    """Train on tiles (n, h, w, 3) uint8 and class numbers (n,), classes drawn alike often; if `augment`, on tiles that are
    mirrored, turned, and shifted in brightness and colours.

    Raises
    ------
    HistoloomError
        when there is no classifier of the name that params state.
    """
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(run.seed)
        try:
            model = Classifier(config.classifier, classes).to(run.device)
        except RuntimeError as error:
            raise HistoloomError(f"uplift.classifier '{config.classifier}' could not be made: {error}") from error
    weights = 1 / np.bincount(truth, minlength=classes)[truth]
    chance, labels = torch.from_numpy(weights), torch.from_numpy(truth)

    def loss(step: int, generator: torch.Generator):
        index = torch.multinomial(chance, config.batch_size, replacement=True, generator=generator)
        batch = prepared(images[index.numpy()], config.image_px, run.device)
        if augment:
            batch = augmented(batch, generator)
        return F.cross_entropy(model(batch).float(), labels[index].to(run.device)), {}

    train(model, loss, run)
    return model.eval()


@torch.inference_mode()
def predict(model: Classifier, images: np.ndarray, image_px: int, device: str) -> np.ndarray:
    """Probabilities (n, classes)."""
    parts = [
        model(prepared(images[i : i + _BATCH], image_px, device)).softmax(1).cpu()
        for i in range(0, len(images), _BATCH)
    ]
    return torch.cat(parts).numpy()


def prepared(images: np.ndarray, image_px: int, device: str) -> torch.Tensor:
    """(n, h, w, 3) uint8 to (n, 3, image_px, image_px) in [0, 1]."""
    values = torch.from_numpy(np.ascontiguousarray(images)).to(device).permute(0, 3, 1, 2).float() / 255
    return F.interpolate(values, size=(image_px, image_px), mode="bilinear", antialias=True)


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flips and quarter turns of the whole batch, brightness and colours shifted picture by picture."""
    for axis in (2, 3):
        if torch.rand((), generator=generator) < 0.5:
            images = images.flip(axis)
    images = images.rot90(int(torch.randint(0, 4, (), generator=generator)), (2, 3))
    shift = _STAIN_SHIFT * torch.randn(len(images), 3, 1, 1, generator=generator).to(images)
    return (images * (1 + shift.mean(1, keepdim=True)) + shift).clamp(0, 1)
