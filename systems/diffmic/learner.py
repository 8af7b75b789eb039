"""Labels by diffusion towards a prior of two branches: the whole tile, and its most salient patches (Yang et al. 2023, "DiffMIC").

Of a label y0 (one-hot) and a prior yhat the paper noises (its eq. 1, after Han et al. 2022, "CARD")

    y_t = sqrt(abar_t) y0 + (1 - sqrt(abar_t)) yhat + sqrt(1 - abar_t) eps

so that y_t - yhat = sqrt(abar_t) (y0 - yhat) + sqrt(1 - abar_t) eps. That is the engine's process of the residual y0 - yhat.
The residual is diffused here, and yhat is added to what is sampled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, ValidationError
from timm.models import EfficientNet
from torch import nn
from torch.nn import functional as F

from histoloom.backbones.mlp import MLP
from histoloom.conditions.batch import Conditions
from histoloom.conditions.efficientnet_lite import load_efficientnet_lite
from histoloom.config.base import Fraction, Positive, Section
from histoloom.config.denoiser_record import ConditionSpec
from histoloom.config.learners import OwnLearner
from histoloom.data.seeds import item_seed
from histoloom.errors import HistoloomError
from histoloom.learners.learner import Learner, Told, Training
from histoloom.learners.networks import BATCH, ImageNetInputs, drawn, keep_norms, label_batches, to_unit
from histoloom.process.noise import latent_noise
from histoloom.process.predictor import Given, Predictor
from histoloom.process.process import Process
from histoloom.process.sampler import pure, sample
from histoloom.process.solver import make_solver
from histoloom.training.loop import train
from histoloom.training.run import LossFunction, Numbers

_EXTRACTOR = "efficientnet-lite0"
_FEATURES, _GRID_PX = 1280, 8
"""Of the network of whole tiles; the distance of places at which patches may lie."""
_BLOCKS, _OF_PATCH = 4, 80
"""Of the same network, what reads patches: its first blocks, and the features that they give."""
PROCESS = Process("epsilon", "linear", 1000)
_MOST = 1.0
"""Of a residual: both the label and its prior lie between 0 and 1."""


class Asked(Section):
    """What the learner can be told."""

    patches: Positive = Field(3, description="salient places that are looked at")
    patch_share: Fraction = Field(0.33, description="side of a patch over that of the tile")
    prior_steps: Fraction = Field(
        0.6, description="share of the steps that train the prior; the denoiser has the others"
    )
    width: Positive = Field(64, description="numbers that the denoiser is told of a tile")
    mmd: float = Field(0.5, ge=0, description="weight of the discrepancy of the branches' noise")
    draws: Positive = Field(
        16, description="noised labels of each tile of a batch: they cost little beside the tile's features"
    )
    denoiser_rate: float = Field(5e-4, gt=0, description="the denoiser's learning rate; the prior has that of the run")
    sampling_steps: Positive = 10
    samples: Positive = Field(20, description="of each tile, each from its own noise")


class Priors(NamedTuple):
    """Logits (b, classes): of both branches, of the whole tile, and of its patches."""

    both: torch.Tensor
    whole: torch.Tensor
    patches: torch.Tensor

    def chances(self) -> tuple[torch.Tensor, ...]:
        return tuple(part.softmax(1) for part in self)


class Prior(ImageNetInputs):
    """Pictures (b, 3, h, w) in [0, 1] to logits. The whole tile's map of classes says where patches are taken (Shen et al. 2021, GMIC)."""

    def __init__(self, classes: int, asked: Asked):
        super().__init__()
        self.asked = asked
        self.trunk = _trunk()
        self.classes = nn.Conv2d(_FEATURES, classes, 1)
        small = _trunk()
        self.small = nn.Sequential(small.conv_stem, small.bn1, *small.blocks[:_BLOCKS])
        self.attention, self.of_patches = nn.Linear(_OF_PATCH, 1), nn.Linear(_OF_PATCH, classes)

    def train(self, mode: bool = True) -> Prior:
        super().train(mode)
        keep_norms(self)
        return self

    def forward(self, images: torch.Tensor) -> Priors:
        images = self.normalised(images)
        maps = self.classes(self.trunk.forward_features(images))
        whole = maps.mean((2, 3))
        patches = self.patches(images, maps)
        count = patches.shape[1]
        told = self.small(patches.flatten(0, 1)).mean((2, 3)).view(-1, count, _OF_PATCH)
        weight = self.attention(told).softmax(1)
        local = self.of_patches((weight * told).sum(1))
        return Priors((whole + local) / 2, whole, local)

    def places(self, images: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
        """Rows and columns of the most salient patches on the grid, (b, patches) each, and their side in px."""
        side = patch_px(images.shape[-1], self.asked.patch_share)
        return *salient_places(maps, images.shape[-1], side, self.asked.patches), side

    def patches(self, images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """The most salient patches, (b, patches, 3, side, side)."""
        rows, columns, side = self.places(images, maps)
        windows = images.unfold(2, side, _GRID_PX).unfold(3, side, _GRID_PX)
        return windows.permute(0, 2, 3, 1, 4, 5)[torch.arange(len(images))[:, None], rows, columns]


def patch_px(tile_px: int, share: float) -> int:
    """The side of a patch, a multiple of the grid."""
    return max(_GRID_PX, round(share * tile_px / _GRID_PX) * _GRID_PX)


@torch.no_grad()
def salient_places(maps: torch.Tensor, tile_px: int, side: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns on the grid, (b, count) each, where the map of the likeliest class is largest; one after another, apart if there is room.

    Parameters
    ----------
    maps : (b, classes, h, w), of which the class with the largest mean counts.
    """
    likeliest = maps.mean((2, 3)).argmax(1)
    own = maps[torch.arange(len(maps)), likeliest][:, None]
    width, across = side // _GRID_PX, tile_px // _GRID_PX
    even = F.interpolate(own, size=(across, across), mode="bilinear")
    scores = F.avg_pool2d(even, width, 1)[:, 0]
    places = scores.shape[-1]
    y, x = torch.meshgrid(*[torch.arange(places, device=maps.device)] * 2, indexing="ij")
    found = []
    for _ in range(count):
        best = scores.flatten(1).argmax(1)
        row, column = best // places, best % places
        found.append((row, column))
        near = ((y - row[:, None, None]).abs() < width) & ((x - column[:, None, None]).abs() < width)
        scores = torch.where(near, scores - 1e3, scores)
    return torch.stack([row for row, _ in found], 1), torch.stack([column for _, column in found], 1)


class Denoiser(ImageNetInputs):
    """Noised residuals (b, classes) to their noise, given the tile's features and a prior; the engine's perceptron under an encoder of its own."""

    def __init__(self, trunk: EfficientNet, classes: int, width: int):
        super().__init__()
        self.trunk, self.told = deepcopy(trunk), nn.Linear(_FEATURES, width)
        self.perceptron = MLP(classes, (128, 128, 128), width + classes, 0)

    def train(self, mode: bool = True) -> Denoiser:
        super().train(mode)
        keep_norms(self)
        return self

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """(b, width) of pictures (b, 3, h, w) in [0, 1]."""
        return F.silu(self.told(self.trunk.forward_features(self.normalised(images)).mean((2, 3))))

    def forward(self, x: torch.Tensor, times: torch.Tensor, given: Conditions) -> torch.Tensor:
        return self.perceptron(x, times, given)


@dataclass(frozen=True)
class DiffMIC(Learner):
    """px : side to which tiles are resized."""

    prior: Prior
    denoiser: Denoiser
    asked: Asked
    px: int
    device: str
    tasks = ("label",)
    learning_rate = 3e-4

    @classmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        """The prior first, then the denoiser, while the prior is frozen; as many steps in all as the run has."""
        asked, run, count, px = _asked(training.told), training.run, len(training.classes), training.image_px
        steps = min(run.steps - 1, max(1, round(asked.prior_steps * run.steps)))
        first = _part(training, "prior", steps, run.learning_rate)
        second = _part(training, "denoiser", run.steps - steps, asked.denoiser_rate)
        prior = drawn(lambda: Prior(count, asked), run)
        train(prior, prior_loss(prior, label_batches(images, truth, first, px)), first.run)
        prior.eval().requires_grad_(False)
        denoiser = drawn(lambda: Denoiser(prior.trunk, count, asked.width), run).requires_grad_(True)
        train(denoiser, noise_loss(prior, denoiser, asked, label_batches(images, truth, second, px)), second.run)
        denoiser.eval().requires_grad_(False)
        return cls(prior, denoiser, asked, px, run.device)

    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        return self.told(images)[0]

    def told(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of tiles (n, h, w, 3) uint8: probabilities (n, classes), their deviation over samples (n, classes), and what the prior says (n, classes).

        A label is one-hot, so the mean of labels that were drawn is a probability.
        """
        parts = [self._told(images[i : i + BATCH]) for i in range(0, len(images), BATCH)]
        probabilities, spread, prior = (np.concatenate([part[n] for part in parts]) for n in range(3))
        return probabilities, spread, prior

    @torch.inference_mode()
    def boxes(self, images: np.ndarray) -> np.ndarray:
        """Of tiles (n, h, w, 3) uint8 the patches that are looked at, (n, patches, 3): top, left and side over the tile's side."""
        shown = self.prior.normalised(to_unit(images, self.device, self.px))
        rows, columns, side = self.prior.places(shown, self.prior.classes(self.prior.trunk.forward_features(shown)))
        boxes = torch.stack([rows * _GRID_PX, columns * _GRID_PX, torch.full_like(rows, side)], 2) / self.px
        return boxes.cpu().numpy()

    @torch.inference_mode()
    def _told(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        shown = to_unit(images, self.device, self.px)
        yhat, features = self.prior(shown).both.softmax(1), self.denoiser.features(shown)
        vector, count = torch.cat([features, yhat], 1), self.asked.samples
        conditions = Conditions(vector=vector.repeat(count, 1))
        given = Given(conditions, Conditions(vector=torch.zeros_like(vector[:1])))
        specs = (ConditionSpec("tile", "vector", vector.shape[1], 0.0),)
        predictor = Predictor(self.denoiser, PROCESS, specs, lambda level: lambda name: 1.0, _MOST)
        seeds = [_seed(image, number) for number in range(count) for image in images]
        noise = torch.from_numpy(latent_noise(seeds, yhat.shape[1:])).to(self.device)
        solver = make_solver("ddim", predictor.process, self.asked.sampling_steps)
        labels = sample(predictor, solver, pure(solver, noise), given).view(count, *yhat.shape) + yhat
        mean = labels.clamp(0, 1).mean(0).clamp(min=1e-6)
        probabilities, deviation = mean / mean.sum(1, keepdim=True), labels.std(0, correction=0)
        return probabilities.cpu().numpy(), deviation.cpu().numpy(), yhat.cpu().numpy()


Batches = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]


def prior_loss(prior: Prior, batch_of: Batches) -> LossFunction:
    """Cross entropy of both branches together and of each alone."""

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        shown, labels = batch_of(step, generator)
        each = [F.cross_entropy(part.float(), labels) for part in prior(shown)]
        return torch.stack(each).mean(), {}

    return loss


def noise_loss(prior: Prior, denoiser: Denoiser, asked: Asked, batch_of: Batches) -> LossFunction:
    """Squared error of the noise under the joint prior, plus the discrepancy (MMD) of noise and what is predicted of it under each branch."""

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        shown, labels = batch_of(step, generator)
        with torch.no_grad():
            priors = prior(shown).chances()
        y0 = F.one_hot(labels, priors[0].shape[1]).float().repeat(asked.draws, 1)
        times = antithetic_times(len(y0), PROCESS.train_timesteps, generator).to(y0.device)
        noise = torch.randn(y0.shape, generator=generator).to(y0.device)
        features, scales = denoiser.features(shown).repeat(asked.draws, 1), PROCESS.scales_of(times, 2)

        def predicted(yhat: torch.Tensor) -> torch.Tensor:
            noisy = PROCESS.noised(y0 - yhat, noise, scales)
            return denoiser(noisy, times, Conditions(vector=torch.cat([features, yhat], 1)))

        joint, whole, patches = (predicted(yhat.repeat(asked.draws, 1)) for yhat in priors)
        error, apart = F.mse_loss(joint, noise), mmd(noise, whole) + mmd(noise, patches)
        return error + asked.mmd * apart, {"error": error.detach(), "mmd": apart.detach()}

    return loss


def antithetic_times(count: int, timesteps: int, generator: torch.Generator) -> torch.Tensor:
    """(count,) Each time beside its mirror image, so that a batch sees noise of all levels."""
    half = torch.randint(0, timesteps, (count // 2 + 1,), generator=generator)
    return torch.cat([half, timesteps - 1 - half])[:count]


def mmd(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Maximum mean discrepancy of rows (b, d) by a Gaussian kernel (Gretton et al. 2012), whose width grows with d."""

    def kernel(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return (-(a[:, None] - b[None]).square().sum(2) / a.shape[1] ** 2).exp().mean()

    return kernel(first, first) + kernel(second, second) - 2 * kernel(first, second)


def _asked(told: Told) -> Asked:
    """What it is told, checked.

    Raises
    ------
    HistoloomError
        for a key or a value that is none of its own.
    """
    try:
        return Asked(**(told.told if isinstance(told, OwnLearner) else {}))
    except ValidationError as error:
        raise HistoloomError(f"uplift.learner of diffmic: {error}") from error


def _trunk() -> EfficientNet:
    network, _ = load_efficientnet_lite(_EXTRACTOR)
    network.reset_classifier(0)
    return network


def _part(training: Training, name: str, steps: int, rate: float) -> Training:
    """One of the two trainings, with other batches than the other."""
    run = training.run
    seed, warmup = item_seed(run.seed, name) % 2**31, min(run.warmup_steps, steps // 10)
    own = replace(
        run, steps=steps, learning_rate=rate, seed=seed, warmup_steps=warmup, checkpoint_every=steps,
        checkpoints=run.checkpoints / name, history=[], measured=[],
    )  # fmt: skip
    return replace(training, run=own)


def _seed(image: np.ndarray, number: int) -> int:
    """Of a sample's noise: the same for the same tile, wherever it stands."""
    told = hashlib.sha256(np.ascontiguousarray(image).tobytes() + number.to_bytes(4, "big"))
    return int.from_bytes(told.digest()[:8], "big")
