"""A learner's network trained on tiles without labels, before it learns labels or masks."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file
from torch import nn

from histoloom.config.uplift import Pretraining
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.learners.learner import Learner, Training
from histoloom.learners.networks import drawn
from histoloom.training.tile_encoder import WithoutLabels, fit_without_labels


class StartsPretrained(Learner):
    """A learner whose network has an encoder of whole pictures: `embedded(images)`, (b, 3, h, w) in [0, 1] to (b, d)."""

    @classmethod
    @abstractmethod
    def begun(cls, training: Training) -> nn.Module:
        """The network as training begins from it."""


class _Encoder(nn.Module):
    """What of a network embeds pictures."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network.embedded(images)  # type: ignore[operator]


def pretrain(
    learner: type[StartsPretrained], training: Training, told: Pretraining, store: TileStore, rows: pd.DataFrame
) -> dict[str, torch.Tensor]:
    """Train a learner's encoder on the tiles of `rows`, whose labels are not read.

    Returns
    -------
    The weights that were trained, by name. Those that see no picture here, such as a decoder's, are left out.
    """
    run = training.run

    def made() -> _Encoder:
        return _Encoder(drawn(lambda: learner.begun(training), run))

    network = made().eval()
    with torch.no_grad():
        size = network(torch.zeros(1, 3, training.image_px, training.image_px, device=run.device)).shape[1]
    how = WithoutLabels(told.method, training.image_px, size, told.batch_size)
    trained = fit_without_labels(made, how, store, rows, run).network
    before = dict(network.network.named_parameters())
    return {
        name: weights.detach().cpu().contiguous()
        for name, weights in trained.named_parameters()
        if not torch.equal(weights, before[name])
    }


def load_start(network: nn.Module, start: Path | None) -> None:
    """Put the weights of a file that holds what `pretrain` gave into a network.

    Raises
    ------
    HistoloomError
        when they are another network's.
    """
    if start is None:
        return
    weights, own = load_file(start), network.state_dict()
    if wrong := [name for name, value in weights.items() if name not in own or own[name].shape != value.shape]:
        raise HistoloomError(
            f"{start} holds the weights of another network ({wrong[0]}). Delete data/uplift, and run uplift again."
        )
    network.load_state_dict(weights, strict=False)
