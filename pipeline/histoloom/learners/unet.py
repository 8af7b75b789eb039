"""The learner of masks: a U-Net (Ronneberger et al. 2015) whose encoder is EfficientNet-Lite0 with ImageNet's weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from histoloom.conditions.efficientnet_lite import load_efficientnet_lite
from histoloom.learners.learner import Learner, Training
from histoloom.learners.networks import ImageNetInputs, class_ids, drawn, fit_masks, keep_norms

if TYPE_CHECKING:
    from timm.models.efficientnet import EfficientNetFeatures

_DECODER = (64, 32, 24, 16)
"""Channels of the decoder's blocks, the coarsest first."""
_STAGES = 5
"""Of the encoder, those up to a sixteenth of the side. What comes after them would be computed and thrown away."""
_WEIGHTS, _FACTS = "unet.safetensors", "unet.json"


class UNetNetwork(ImageNetInputs):
    """Pictures (b, 3, h, w) in [0, 1] of any size to logits (b, classes + 1, h, w); class 0 is background.

    The network is that of segmentation-models-pytorch; its new weights are drawn, those of the encoder too.
    """

    def __init__(self, classes: int):
        import segmentation_models_pytorch as smp

        super().__init__()
        self.network = smp.Unet(
            "tu-tf_efficientnet_lite0", encoder_weights=None, encoder_depth=len(_DECODER), decoder_channels=_DECODER,
            classes=classes + 1,
        )  # fmt: skip
        del self.encoder.blocks[_STAGES:]

    @property
    def encoder(self) -> EfficientNetFeatures:
        """timm's network, (b, 3, h, w) to the features of each scale."""
        return self.network.encoder.model

    def with_imagenet(self) -> Self:
        """Fill the encoder with ImageNet's weights."""
        trained = load_efficientnet_lite("efficientnet-lite0")[0].state_dict()
        self.encoder.load_state_dict({name: trained[name] for name in self.encoder.state_dict()})
        return self

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        keep_norms(self.encoder)
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(self.normalised(images))


@dataclass(frozen=True)
class UNet(Learner):
    """classes : how many, without the background."""

    model: UNetNetwork
    classes: int
    device: str
    tasks = ("mask",)
    learning_rate = 2e-3

    @classmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        classes = len(training.classes)
        model = drawn(lambda: UNetNetwork(classes).with_imagenet(), training.run)
        fit_masks(model, images, truth, training)
        return cls(model, classes, training.run.device)

    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        return class_ids(self.model, images, self.device)

    def save(self, folder: Path) -> None:
        save_file({n: t.cpu().contiguous() for n, t in self.model.state_dict().items()}, folder / _WEIGHTS)
        (folder / _FACTS).write_text(json.dumps({"classes": self.classes}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        classes = json.loads((folder / _FACTS).read_text(encoding="utf-8"))["classes"]
        with torch.random.fork_rng(devices=[]):  # weights are drawn, which are replaced
            model = UNetNetwork(classes)
        model.load_state_dict(load_file(folder / _WEIGHTS))
        return cls(model.to(device).eval().requires_grad_(False), classes, device)
