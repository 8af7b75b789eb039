"""The classifiers that are trained: EfficientNet-Lite0 from ImageNet's weights, or a net of timm."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from histoloom.conditions.efficientnet_lite import load_efficientnet_lite
from histoloom.errors import HistoloomError
from histoloom.learners.learner import Training
from histoloom.learners.networks import ImageNetInputs, drawn, fit_labels, keep_norms, probabilities
from histoloom.learners.pretraining import StartsPretrained, load_start

_DROP_PATH = 0.2
"""Of stochastic depth, as EfficientNet-Lite was trained."""


class _Network(ImageNetInputs):
    """Pictures (b, 3, h, w) in [0, 1] to logits (b, classes).

    trained : whether it came with weights, whose norms it keeps.
    """

    def __init__(self, network: nn.Module, trained: bool):
        super().__init__()
        self.network, self.trained = network, trained

    def train(self, mode: bool = True) -> _Network:
        super().train(mode)
        if self.trained:
            keep_norms(self)
        return self

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        """(b, d) of whole pictures."""
        network: Any = self.network  # of timm
        return network.forward_head(network.forward_features(self.normalised(images)), pre_logits=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(self.normalised(images))


@dataclass(frozen=True)
class Classifier(StartsPretrained):
    """A network of labels, which sees tiles at the side `image_px`."""

    model: nn.Module
    image_px: int
    device: str
    tasks = ("label",)
    learning_rate = 3e-4

    @staticmethod
    @abstractmethod
    def network(name: str, classes: int) -> nn.Module:
        """Pictures in [0, 1] to logits (b, classes)."""

    @classmethod
    def begun(cls, training: Training) -> nn.Module:
        try:
            return cls.network(training.learner, len(training.classes))
        except RuntimeError as error:
            raise HistoloomError(f"The learner '{training.learner}' could not be made: {error}") from error

    @classmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        model = drawn(lambda: cls.begun(training), training.run)
        load_start(model, training.start)
        fit_labels(model, images, truth, training, training.image_px)
        return cls(model, training.image_px, training.run.device)

    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        return probabilities(self.model, images, self.device, self.image_px)


class EfficientNetLite(Classifier):
    """EfficientNet-Lite0 with ImageNet's weights."""

    @staticmethod
    def network(name: str, classes: int) -> nn.Module:
        network, _ = load_efficientnet_lite(name, drop_path=_DROP_PATH)
        network.reset_classifier(classes)
        return _Network(network, trained=True)


class TimmClassifier(Classifier):
    """A network of timm by its name, without pretrained weights."""

    @staticmethod
    def network(name: str, classes: int) -> nn.Module:
        import timm

        return _Network(timm.create_model(name.removeprefix("timm:"), num_classes=classes), trained=False)
