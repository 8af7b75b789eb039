"""Labels and masks read off a denoiser's features (Baranchuk et al. 2022, "Label-efficient semantic segmentation with diffusion models").

A tile is noised a little, or not at all, and the features of several of the denoiser's modules, under no condition, are joined at the
data's resolution. A light decoder of masks, or a linear head of labels, is trained on them. The denoiser is frozen; or it is trained
further with the head, from its weights, on clean tiles (Purma et al. 2023, "GenSelfDiff-HIS").
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from histoloom.backbones.backbone import Backbone
from histoloom.config.learners import DenoiserLearner
from histoloom.config.package import root as packaged_models
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError
from histoloom.learners.learner import Learner, Told, Training
from histoloom.learners.networks import class_ids, drawn, fit_labels, fit_masks, mask_chances, probabilities
from histoloom.process.noise import latent_noise
from histoloom.sampling.diffusion_model import DiffusionModel, lineage_of_models, load_unconditioned

_WIDTH, _TUNED_RATE = 128, 5e-4
_STUDY = ("encoders", "autoencoder", "denoiser")
_WEIGHTS, _FACTS, _MODELS = "head.safetensors", "head.json", "models"


@dataclass(frozen=True)
class DenoiserReader:
    """What a denoiser's modules give of tiles. It is no module, so that frozen weights are neither trained nor kept with a head's.

    levels : how far tiles are noised on the way to noise, each read in its turn. taps : modules of the network.
    """

    model: DiffusionModel
    levels: tuple[float, ...]
    taps: tuple[str, ...]

    def read(self, network: Backbone, images: torch.Tensor) -> torch.Tensor:
        """(b, 3, h, w) in [0, 1] to (b, features, h / factor, w / factor), those of all levels and taps joined.

        Raises
        ------
        HistoloomError
            for a side that is no multiple of the target's factor.
        """
        model, factor = self.model, self.model.raster.factor
        if any(side % factor for side in images.shape[2:]):
            raise HistoloomError(f"The denoiser reads tiles whose sides are multiples of {factor} px.")
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        with torch.no_grad():
            x0 = model.target.encode({"image": pixels}).to(model.device)
        noise = torch.from_numpy(latent_noise([0], tuple(x0.shape[1:]))).to(model.device)  # one for all tiles
        nulls = model.nulls(x0.shape[2], x0.shape[3]).each(lambda value: value.expand(len(x0), *value.shape[1:]))
        found = []
        for level in self.levels:
            time = round(level * model.process.train_timesteps)
            x = model.process.noised(x0, noise, model.process.scales(time)) if level else x0
            times = torch.full((len(x),), time, device=model.device)
            features = network.features(x, times, nulls.to(model.device), self.taps)
            found += [F.interpolate(features[tap].float(), x.shape[2:], mode="bilinear") for tap in self.taps]
        return torch.cat(found, 1)


@dataclass(frozen=True)
class FrozenFeatures:
    """A denoiser's features of tiles, its weights as they are."""

    reader: DenoiserReader

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.reader.read(self.reader.model.network, images)


class TunedFeatures(nn.Module):
    """The same of a copy of the denoiser whose weights are trained."""

    def __init__(self, reader: DenoiserReader, network: Backbone):
        super().__init__()
        self.reader, self.network = reader, network.requires_grad_(True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.reader.read(self.network, images)


class MaskHead(nn.Module):
    """Pictures (b, 3, h, w) in [0, 1] to logits (b, outputs, h, w): each pixel of the data tells those of its patch (Shi et al. 2016)."""

    def __init__(self, features: FrozenFeatures | TunedFeatures, factor: int, channels: int, outputs: int):
        super().__init__()
        self.features, self.factor = features, factor
        self.layers = nn.Sequential(
            nn.BatchNorm2d(channels), nn.Conv2d(channels, _WIDTH, 1), nn.ReLU(),
            nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), nn.ReLU(),
            nn.Conv2d(_WIDTH, outputs * self.factor**2, 1),
        )  # fmt: skip

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(self.layers(self.features(images)), self.factor)


class LabelHead(nn.Module):
    """Pictures (b, 3, h, w) in [0, 1] to logits (b, outputs), linear in the features' means."""

    def __init__(self, features: FrozenFeatures | TunedFeatures, factor: int, channels: int, outputs: int):
        super().__init__()
        self.features = features
        self.layers = nn.Sequential(nn.BatchNorm1d(channels), nn.Linear(channels, outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(self.features(images).mean((2, 3)))


@dataclass(frozen=True)
class DenoiserFeatures(Learner):
    """A head on a denoiser. Tiles keep their size.

    models : the folder of the denoiser. facts : what rebuilds the head: its task, its outputs.
    """

    head: nn.Module
    models: Path
    told: DenoiserLearner
    task: str
    outputs: int
    device: str
    tasks = ("label", "mask")
    learning_rate = 2e-3

    @classmethod
    def rate(cls, told: Told) -> float:
        """A denoiser's own weights are tuned more gently."""
        return _TUNED_RATE if _told(told).tune else cls.learning_rate

    @classmethod
    def reads(cls, told: Told) -> tuple[str, ...]:
        return () if _told(told).init else tuple(f"models/{name}" for name in _STUDY)

    @classmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        told, run, masks = _told(training.told), training.run, training.task == "mask"
        models, outputs = _models(told, training.models), len(training.classes) + masks
        head = drawn(lambda: _head(models, told, training.task, outputs, run.device), run)
        if masks:
            fit_masks(head, images, truth, training, told.loss)
        else:
            fit_labels(head, images, truth, training, None)
        return cls(head, models, told, training.task, outputs, run.device)

    @classmethod
    def saw(cls, models: Path, told: Told) -> dict:
        return lineage_of_models(_models(_told(told), models)).record

    def chances(self, images: np.ndarray) -> np.ndarray:
        return mask_chances(self.head, images, self.device)

    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        return (
            class_ids(self.head, images, self.device)
            if self.task == "mask"
            else probabilities(self.head, images, self.device, None)
        )

    def save(self, folder: Path) -> None:
        """The head, and beside it the models that it reads, so that the folder is whole."""
        for name in (name for name in _STUDY if (self.models / name).is_dir()):
            shutil.copytree(self.models / name, folder / _MODELS / name)
        save_file({n: t.cpu().contiguous() for n, t in self.head.state_dict().items()}, folder / _WEIGHTS)
        told = self.told.model_dump(mode="json", exclude={"init"})
        write_json(folder / _FACTS, {"told": told, "task": self.task, "outputs": self.outputs})

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        facts, models = json.loads((folder / _FACTS).read_text(encoding="utf-8")), folder / _MODELS
        told, task, outputs = DenoiserLearner(**facts["told"]), facts["task"], facts["outputs"]
        with torch.random.fork_rng(devices=[]):  # weights are drawn, which are replaced
            head = _head(models, told, task, outputs, device).to(device)
        head.load_state_dict(load_file(folder / _WEIGHTS))
        return cls(head.eval().requires_grad_(False), models, told, task, outputs, device)


def _head(models: Path, told: DenoiserLearner, task: str, outputs: int, device: str) -> nn.Module:
    model = load_unconditioned(models, device)
    if model.target.reads != ("image",):
        raise HistoloomError("The learner 'denoiser' needs a denoiser of images: take another learner.")
    taps = model.network.taps
    reader = DenoiserReader(model, (0.0,) if told.tune else told.levels, taps[-told.blocks :] if told.blocks else taps)
    features: FrozenFeatures | TunedFeatures = FrozenFeatures(reader)
    px = model.record.training.px * model.raster.factor
    channels = features(torch.zeros(1, 3, px, px)).shape[1]
    if told.tune:
        network = copy.deepcopy(model.network)
        network._run = None  # trained, it runs as it is
        if told.weights == "drawn":
            network.apply(_draw_anew)
        features = TunedFeatures(reader, network)
    kind = MaskHead if task == "mask" else LabelHead
    return kind(features, model.raster.factor, channels, outputs)


def _draw_anew(module: nn.Module) -> None:
    if callable(draw := getattr(module, "reset_parameters", None)):
        draw()


def _told(told: Told) -> DenoiserLearner:
    return told if isinstance(told, DenoiserLearner) else DenoiserLearner()


def _models(told: DenoiserLearner, of_study: Path | None) -> Path:
    """The folder of the models that are read.

    Raises
    ------
    HistoloomError
        when there is no denoiser in it.
    """
    models = of_study
    if told.init:
        models = packaged_models() / told.init if (packaged_models() / told.init).is_dir() else Path(told.init)
    if models is None or not (models / "denoiser").is_dir():
        where = f"{told.init} holds none" if told.init else "there is none. Run: dvc repro train_denoiser"
        raise HistoloomError(f"The learner 'denoiser' needs a trained denoiser, and {where}.")
    return models
