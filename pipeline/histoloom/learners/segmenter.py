"""The segmenter: a U-Net that finds a study's mask classes in a tile, and its training on tiles and their masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from histoloom.targets.pixels import to_model
from histoloom.training.loop import TrainingRun, epoch_order, train

_BATCH = 64
_GROUPS = 4
_TRAINED_AT_ONCE = 16
_STAIN_SHIFT = 0.1


def _block(channels_in: int, channels_out: int) -> nn.Sequential:
    pairs = pairwise((channels_in, channels_out, channels_out))
    return nn.Sequential(
        *(m for i, o in pairs for m in (nn.Conv2d(i, o, 3, padding=1), nn.GroupNorm(_GROUPS, o), nn.SiLU()))
    )


class UNet(nn.Module):
    """Three levels: pictures (b, 3, h, w), sides multiples of 4, to (b, outputs, h, w).

    block : (channels in, channels out) to what each level is made of.
    """

    def __init__(self, outputs: int, width: int, block: Callable[[int, int], nn.Module]):
        super().__init__()
        self.down = nn.ModuleList([block(3, width), block(width, 2 * width)])
        self.middle = block(2 * width, 4 * width)
        self.up = nn.ModuleList([block(6 * width, 2 * width), block(3 * width, width)])
        self.out = nn.Conv2d(width, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = []
        for block in self.down:
            kept.append(block(x))
            x = F.max_pool2d(kept[-1], 2)
        x = self.middle(x)
        for block in self.up:
            skipped = kept.pop()
            x = block(torch.cat([F.interpolate(x, size=skipped.shape[-2:]), skipped], 1))
        return self.out(x)


class Segmenter(UNet):
    """Pictures (b, 3, h, w) in [-1, 1] to logits (b, classes + 1, h, w); class 0 is background."""

    def __init__(self, classes: int, width: int = 16):
        super().__init__(classes + 1, width, _block)
        self.classes, self.width = classes, width

    @torch.inference_mode()
    def segment(self, images: np.ndarray) -> np.ndarray:
        """(n, h, w, 3) uint8 to class ids (n, h, w) uint8."""
        device = str(next(self.parameters()).device)
        found = [
            self(to_model(images[i : i + _BATCH], device)).argmax(1).to(torch.uint8).cpu().numpy()
            for i in range(0, len(images), _BATCH)
        ]
        return np.concatenate(found) if found else np.empty(images.shape[:3], np.uint8)

    def save(self, folder: Path) -> None:
        save_file({n: t.cpu().contiguous() for n, t in self.state_dict().items()}, folder / "segmenter.safetensors")
        facts = {"classes": self.classes, "width": self.width}
        (folder / "segmenter.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")


def load_segmenter(folder: Path, device: str = "cpu") -> Segmenter:
    model = Segmenter(**json.loads((folder / "segmenter.json").read_text(encoding="utf-8")))
    model.load_state_dict(load_file(folder / "segmenter.safetensors"))
    return model.to(device).eval().requires_grad_(False)


def dice(found: np.ndarray, stated: np.ndarray, classes: int) -> np.ndarray:
    """Dice coefficient of masks (n, h, w) of class ids, (n,): the mean over the classes that either of the two has; 1
    where neither has any.
    """
    each = np.full((classes, len(found)), np.nan)
    for number in range(classes):
        ours, theirs = found == number + 1, stated == number + 1
        size = ours.sum((1, 2)) + theirs.sum((1, 2))
        np.divide(2 * (ours & theirs).sum((1, 2)), size, out=each[number], where=size > 0)
    known = np.isfinite(each)
    return np.where(known.any(0), np.nansum(each, 0) / np.maximum(known.sum(0), 1), 1.0)


def train_segmenter(
    images: np.ndarray,
    masks: np.ndarray,
    classes: int,
    run: TrainingRun,
    *,
    augment: bool = True,
    batch_size: int = _TRAINED_AT_ONCE,
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
