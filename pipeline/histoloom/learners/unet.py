"""The learners of masks: U-Nets (Ronneberger et al. 2015), a small one from scratch and one with a trained encoder."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from histoloom.conditions.efficientnet_lite import load_efficientnet_lite
from histoloom.learners.learner import Training
from histoloom.learners.networks import ImageNetInputs, class_ids, drawn, fit_masks, keep_norms, mask_chances
from histoloom.learners.pretraining import StartsPretrained, load_start

if TYPE_CHECKING:
    from timm.models.efficientnet import EfficientNetFeatures

_GROUPS, _WIDTH = 4, 16
_DECODER = (64, 32, 24, 16)
"""Channels of the blocks that decode EfficientNet's features, the coarsest first."""
_STAGES = 5
"""Of EfficientNet, those up to a sixteenth of the side. What comes after them would be computed and thrown away."""
_WEIGHTS, _FACTS = "unet.safetensors", "unet.json"


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    pairs = pairwise((channels_in, channels_out, channels_out))
    return nn.Sequential(
        *(m for i, o in pairs for m in (nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(_GROUPS, o), nn.SiLU()))
    )


class ThreeLevels(nn.Module):
    """A U-Net of three levels: pictures (b, 3, h, w), sides multiples of 4, to (b, outputs, h, w).

    block : (channels in, channels out) to what each level is made of.
    """

    def __init__(self, outputs: int, width: int, block: Callable[[int, int], nn.Module]):
        super().__init__()
        self.down = nn.ModuleList([block(3, width), block(width, 2 * width)])
        self.middle = block(2 * width, 4 * width)
        self.up = nn.ModuleList([block(6 * width, 2 * width), block(3 * width, width)])
        self.out = nn.Conv2d(width, outputs, 1)

    def coarsest(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(b, 4 width, h / 4, w / 4), and what each level before it gave."""
        kept = []
        for block in self.down:
            kept.append(block(x))
            x = F.max_pool2d(kept[-1], 2)
        return self.middle(x), kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, kept = self.coarsest(x)
        for block in self.up:
            skipped = kept.pop()
            x = block(torch.cat([F.interpolate(x, size=skipped.shape[-2:]), skipped], 1))
        return self.out(x)


class Small(nn.Module):
    """Pictures (b, 3, h, w) in [0, 1], sides multiples of 4, to logits (b, classes + 1, h, w); class 0 is background."""

    def __init__(self, classes: int):
        super().__init__()
        self.network = ThreeLevels(classes + 1, _WIDTH, _block)

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        """(b, d) of whole pictures."""
        return self.network.coarsest(2 * images - 1)[0].mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(2 * images - 1)


class OnEfficientNet(ImageNetInputs):
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

    def embedded(self, images: torch.Tensor) -> torch.Tensor:
        """(b, d) of whole pictures."""
        return self.encoder(self.normalised(images))[-1].mean((2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(self.normalised(images))


@dataclass(frozen=True)
class Segmenter(StartsPretrained):
    """A network of masks. classes : how many, without the background."""

    model: nn.Module
    classes: int
    device: str
    tasks = ("mask",)
    learning_rate = 2e-3

    @staticmethod
    @abstractmethod
    def network(classes: int) -> nn.Module:
        """Pictures in [0, 1] to logits, its weights drawn."""

    @classmethod
    def begun(cls, training: Training) -> nn.Module:
        return cls.network(len(training.classes))

    @classmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        model = drawn(lambda: cls.begun(training), training.run)
        load_start(model, training.start)
        fit_masks(model, images, truth, training)
        return cls(model, len(training.classes), training.run.device)

    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        return class_ids(self.model, images, self.device)

    def chances(self, images: np.ndarray) -> np.ndarray:
        return mask_chances(self.model, images, self.device)

    def save(self, folder: Path) -> None:
        save_file({n: t.cpu().contiguous() for n, t in self.model.state_dict().items()}, folder / _WEIGHTS)
        (folder / _FACTS).write_text(json.dumps({"classes": self.classes}) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        classes = json.loads((folder / _FACTS).read_text(encoding="utf-8"))["classes"]
        with torch.random.fork_rng(devices=[]):  # weights are drawn, which are replaced
            model = cls.network(classes)
        model.load_state_dict(load_file(folder / _WEIGHTS))
        return cls(model.to(device).eval().requires_grad_(False), classes, device)


class UNet(Segmenter):
    """Three levels of width 16 with group norms, from scratch."""

    @staticmethod
    def network(classes: int) -> nn.Module:
        return Small(classes)


class UNetImageNet(Segmenter):
    """segmentation-models-pytorch's, its encoder EfficientNet-Lite0 with ImageNet's weights."""

    @staticmethod
    def network(classes: int) -> nn.Module:
        return OnEfficientNet(classes)

    @classmethod
    def begun(cls, training: Training) -> nn.Module:
        return OnEfficientNet(len(training.classes)).with_imagenet()
