"""How well noised data agrees with what is asked for, and the gradient of that, which pushes the steps of sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from histoloom.conditions.label import encode_labels
from histoloom.conditions.noised_classifier import NoisedClassifier


class Agreement(Protocol):
    """What a condition's classifier, or its CLIP, says of noised data."""

    def wanted(self, asked: Sequence[str]) -> torch.Tensor:
        """(n, d) of captions, or of labels. Empty ones ask for nothing: zeros."""
        ...

    def gradient(self, noisy: torch.Tensor, times: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Of the agreement of x_t (b, c, ...) at times (b,) with what its rows want (b, d), with respect to x_t."""
        ...


@dataclass(frozen=True)
class LabelAgreement:
    """The log probability of a label, by a classifier of noised data (Dhariwal & Nichol 2021, eq. 10)."""

    classifier: NoisedClassifier
    device: str

    def wanted(self, asked: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(encode_labels([label or None for label in asked], self.classifier.classes)).to(
            self.device
        )

    def gradient(self, noisy: torch.Tensor, times: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            x, label = noisy.clone().requires_grad_(), wanted.clone()
            log_probability = (self.classifier(x, times.clone()).log_softmax(1) * label).sum()
            return torch.autograd.grad(log_probability, x)[0]


def load_label_agreement(folder: Path, device: str) -> LabelAgreement:
    return LabelAgreement(NoisedClassifier.load(folder).to(device).eval().requires_grad_(False), device)
