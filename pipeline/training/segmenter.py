"""Training the segmenter on tiles and their masks."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from pipeline.models.autoencoder import to_model
from pipeline.models.segmenter import Segmenter
from pipeline.training.loop import TrainingRun, epoch_order, train

_BATCH = 16
_STAIN_SHIFT = 0.1


def train_segmenter(
    images: np.ndarray,
    masks: np.ndarray,
    classes: int,
    run: TrainingRun,
    *,
    augment: bool = True,
    batch_size: int = _BATCH,
) -> Segmenter:
    """Train on tiles (n, h, w, 3) uint8 and class ids (n, h, w), if `augment` mirrored, turned, and with brightness and colours
    shifted.

    The loss is cross entropy plus soft Dice over the classes (Milletari et al. 2016, eq. 1, unsquared).
    """
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(run.seed)
        model = Segmenter(classes).to(run.device)

    def loss(step: int, generator: torch.Generator):
        index = epoch_order(run.seed, len(images), batch_size, step).numpy()
        batch = to_model(images[index], run.device)
        truth = torch.from_numpy(masks[index]).long().to(run.device)
        if augment:
            batch, truth = _augmented(batch, truth, generator)
        logits = model(batch).float()
        chance, wanted = logits.softmax(1)[:, 1:], F.one_hot(truth, classes + 1).movedim(-1, 1)[:, 1:]
        both = (chance * wanted).sum((0, 2, 3))
        overlap = (2 * both + 1) / (chance.sum((0, 2, 3)) + wanted.sum((0, 2, 3)) + 1)
        return F.cross_entropy(logits, truth) + 1 - overlap.mean(), {"dice": overlap.detach().mean()}

    train(model, loss, run)
    return model.requires_grad_(False)


def _augmented(batch: torch.Tensor, truth: torch.Tensor, generator: torch.Generator):
    for axis in (2, 3):
        if torch.rand((), generator=generator) < 0.5:
            batch, truth = batch.flip(axis), truth.flip(axis - 1)
    turns = int(torch.randint(0, 4, (), generator=generator))
    batch, truth = batch.rot90(turns, (2, 3)), truth.rot90(turns, (1, 2))
    shift = _STAIN_SHIFT * torch.randn(len(batch), 3, 1, 1, generator=generator).to(batch)
    return batch * (1 + shift.mean(1, keepdim=True)) + shift, truth
