"""An encoder of tiles trained without labels: two views of a tile are to be near, and tiles apart. Losses and heads are lightly's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import pandas as pd
import torch
from torch import nn

from histoloom.conditions.feature_extractors import Extractor
from histoloom.conditions.tile_encoder import EncoderSizes, TileEncoder, brought_to
from histoloom.config.train_encoders import ImageTower, SelfSupervision
from histoloom.data.mapped import unpacked_tiles
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.training.loop import train
from histoloom.training.processes import everyones, own_rows
from histoloom.training.run import Numbers, TrainingRun, epoch_order
from histoloom.training.views import side_before, view

MOST_FIT_TILES = 2000
_LEAST_TILES = 8
_READ_AT_ONCE = 256
_TEMPERATURE = 0.2
_BARLOW_SCALE = 1 / 40
"""Of a sum of squared correlations, which else outweighs the clipping of gradients."""

Encoder = TypeVar("Encoder", bound=nn.Module)
_Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class _WithHead(nn.Module):
    """The encoder and the projection that the loss looks at, which is thrown away."""

    def __init__(self, encoder: nn.Module, head: nn.Module):
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(images))


def train_tile_encoder(config: ImageTower, store: TileStore, rows: pd.DataFrame, run: TrainingRun) -> TileEncoder:
    """Train on the tiles of `rows`.

    Raises
    ------
    HistoloomError
        when there are too few tiles to be told apart.
    """
    if len(rows) < _LEAST_TILES:
        raise HistoloomError(
            f"train_encoders.image.source: train learns by telling tiles apart, and the train split has {len(rows)}; it needs "
            f"{_LEAST_TILES}. Add slides, or use efficientnet-lite0."
        )
    sizes = EncoderSizes(config.image_px, config.width, config.size)
    encoder = fit_without_labels(lambda: TileEncoder(sizes), WithoutLabels.of(config), store, rows, run)
    return encoder.requires_grad_(False)


@dataclass(frozen=True)
class WithoutLabels:
    """How an encoder learns without labels. image_px : side of the views that it is shown. size : of its embedding."""

    method: SelfSupervision
    image_px: int
    size: int
    batch_size: int

    @classmethod
    def of(cls, config: ImageTower) -> Self:
        return cls(config.method, config.image_px, config.size, config.batch_size)


def fit_without_labels(
    make: Callable[[], Encoder], how: WithoutLabels, store: TileStore, rows: pd.DataFrame, run: TrainingRun
) -> Encoder:
    """An encoder of pictures (b, 3, image_px, image_px) in [0, 1] to embeddings (b, size), trained on the tiles of `rows`.

    The tiles lie shrunk in a file beside the checkpoints.
    """
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(run.seed)
        head, compare = _method(how)
        encoder = make()
        model = _WithHead(encoder, head).to(run.device)
    count = len(rows)
    run.batch_size = size = min(how.batch_size, count)
    side = side_before(how.image_px, store.array(rows["part"].iloc[0]).shape[1])  # as large as views are cut from

    def shrunk(tiles: np.ndarray) -> np.ndarray:
        pixels = brought_to(torch.from_numpy(tiles).permute(0, 3, 1, 2), side)
        return (255 * pixels).round().to(torch.uint8).numpy()

    pictures = unpacked_tiles(store, rows, run.checkpoints, shrunk)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        index = epoch_order(run.seed, count, size, step)
        images = torch.from_numpy(pictures[index.numpy()]).to(run.device)
        both = torch.cat([view(images, how.image_px, generator)[own_rows(size)] for _ in range(2)])
        first, second = model(both.contiguous(memory_format=torch.channels_last)).float().chunk(2)
        return compare(everyones(first), everyones(second)), {}

    train(model, loss, run)
    return encoder


def features_of(tower: Extractor, store: TileStore, rows: pd.DataFrame) -> np.ndarray:
    """(n, d) features of rows' tiles, which are read batch by batch."""
    return np.concatenate([tower.features(images) for images in store.batches(rows, _READ_AT_ONCE)])


def _method(how: WithoutLabels) -> tuple[nn.Module, _Loss]:
    """The head and the loss of a method."""
    from lightly.loss import BarlowTwinsLoss, NTXentLoss, VICRegLoss
    from lightly.models.modules.heads import BarlowTwinsProjectionHead, SimCLRProjectionHead, VICRegProjectionHead

    size, wide = how.size, 4 * how.size
    if how.method == "simclr":
        return SimCLRProjectionHead(size, size, size), NTXentLoss(_TEMPERATURE)
    if how.method == "vicreg":
        return VICRegProjectionHead(size, wide, wide), VICRegLoss()
    correlate = BarlowTwinsLoss()
    return BarlowTwinsProjectionHead(size, wide, wide), lambda a, b: _BARLOW_SCALE * correlate(a, b)
