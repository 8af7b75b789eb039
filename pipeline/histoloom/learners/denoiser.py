"""Labels and masks read off a denoiser's features (Baranchuk et al. 2022, "Label-efficient semantic segmentation with diffusion models").

The study's denoiser is frozen. A tile is noised a little, and the features of several of its modules, under no condition, are joined at the
data's resolution. What is trained is a light decoder of masks, or a linear head of labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from histoloom.errors import HistoloomError
from histoloom.learners.learner import Learner, Training
from histoloom.learners.networks import class_ids, drawn, fit_labels, fit_masks, probabilities, sure_class_ids
from histoloom.process.noise import latent_noise
from histoloom.sampling.diffusion_model import DiffusionModel, lineage_of_models, load_unconditioned

_LEVEL = 0.05
"""How far tiles are noised on the way to noise: the least of the paper's three, 50 of 1,000 times."""
_WIDTH = 128


@dataclass(frozen=True)
class FrozenFeatures:
    """A denoiser's features of tiles. It is no module, so that its weights are neither trained nor kept with a head's."""

    model: DiffusionModel

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, h, w) in [0, 1] to (b, features, h / factor, w / factor), those of all taps joined.

        Raises
        ------
        HistoloomError
            for a side that is no multiple of the target's factor.
        """
        model, factor = self.model, self.model.raster.factor
        if any(side % factor for side in images.shape[2:]):
            raise HistoloomError(f"The denoiser reads tiles whose sides are multiples of {factor} px.")
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        x0 = model.target.encode({"image": pixels}).to(model.device)
        time = round(_LEVEL * model.process.train_timesteps)
        noise = torch.from_numpy(latent_noise([0], tuple(x0.shape[1:]))).to(model.device)  # one for all tiles
        x = model.process.noised(x0, noise, model.process.scales(time))
        times = torch.full((len(x),), time, device=model.device)
        nulls = model.nulls(x.shape[2], x.shape[3]).each(lambda value: value.expand(len(x), *value.shape[1:]))
        found = model.network.features(x, times, nulls, model.network.taps)
        sized = [F.interpolate(found[tap].float(), x.shape[2:], mode="bilinear") for tap in model.network.taps]
        return torch.cat(sized, 1)


class MaskHead(nn.Module):
    """Pictures (b, 3, h, w) in [0, 1] to logits (b, outputs, h, w): each pixel of the data tells those of its patch (Shi et al. 2016)."""

    def __init__(self, features: FrozenFeatures, channels: int, outputs: int):
        super().__init__()
        self.features, self.factor = features, features.model.raster.factor
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels), nn.Conv2d(channels, _WIDTH, 1), nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.ReLU(),
            nn.Conv2d(_WIDTH, outputs * self.factor**2, 1),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(self.layers(self.features(images)), self.factor)


class LabelHead(nn.Module):
    """Pictures (b, 3, h, w) in [0, 1] to logits (b, outputs), linear in the features' means."""

    def __init__(self, features: FrozenFeatures, channels: int, outputs: int):
        super().__init__()
        self.features = features
        self.layers = nn.Sequential(nn.BatchNorm1d(channels), nn.Linear(channels, outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(self.features(images).mean((2, 3)))


@dataclass(frozen=True)
class DenoiserFeatures(Learner):
    """A head on the study's denoiser. Tiles keep their size, which is the denoiser's own."""

    head: nn.Module
    training: Training
    tasks = ("label", "mask")
    learning_rate = 2e-3
    reads = ("models/encoders", "models/autoencoder", "models/denoiser")

    @classmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        models, run, masks = training.models, training.run, training.task == "mask"
        if models is None or not (models / "denoiser").is_dir():
            raise HistoloomError("The learner 'denoiser' needs the study's models. Run: dvc repro train_denoiser")
        features = FrozenFeatures(load_unconditioned(models, run.device))
        if features.model.target.reads != ("image",):
            raise HistoloomError("The learner 'denoiser' needs a denoiser of images: take another learner.")
        channels = features(torch.zeros(1, 3, *images.shape[1:3])).shape[1]
        kind, outputs = (MaskHead if masks else LabelHead), len(training.classes) + masks
        head = drawn(lambda: kind(features, channels, outputs), run)
        if masks:
            fit_masks(head, images, truth, training)
        else:
            fit_labels(head, images, truth, training, None)
        return cls(head, training)

    @classmethod
    def saw(cls, models: Path) -> dict:
        return lineage_of_models(models)

    def sure_masks(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return sure_class_ids(self.head, images, self.training.run.device)

    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        device = self.training.run.device
        if self.training.task == "mask":
            return class_ids(self.head, images, device)
        return probabilities(self.head, images, device, None)
