"""Masks by diffusion: what is diffused is the mask, and the tile is given (Wu et al. 2022, "MedSegDiff").

Several masks are sampled of a tile, each from its own noise, and joined by vote or STAPLE. How far they agree tells where the answer is sure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch

from histoloom.backbones.backbone import Backbone
from histoloom.backbones.denoiser import load_denoiser, save_denoiser
from histoloom.conditions.batch import Conditions
from histoloom.conditions.encode import ConditionSet
from histoloom.config import Sample, TrainDenoiser
from histoloom.config.denoiser_record import ConditionSpec, DenoiserRecord, DenoiserTraining
from histoloom.config.learners import DiffusionLearner
from histoloom.config.package import read_json
from histoloom.config.program import Program
from histoloom.data.commit import write_json
from histoloom.errors import HistoloomError
from histoloom.learners.augmentation import augmented
from histoloom.learners.learner import Learner, Training
from histoloom.learners.networks import drawn, to_unit
from histoloom.registry import registered
from histoloom.sampling.diffusion_model import DiffusionModel
from histoloom.sampling.drawn import Arrays, Drawn, Rows
from histoloom.sampling.reduce.masks import AGREEMENT
from histoloom.targets.masks import Masks
from histoloom.training.denoiser import denoising_loss
from histoloom.training.loop import train

SPECS = (ConditionSpec("picture", "map", 3, 0.0, ("red", "green", "blue")),)
_FACTS = "diffusion.json"
_BATCH = 64


@dataclass(frozen=True)
class DiffusionSegmenter(Learner):
    """A denoiser of masks. Tiles keep their size; their sides must be multiples of what the network needs.

    classes : how many, without the background.
    """

    model: DiffusionModel
    told: DiffusionLearner
    classes: int
    tasks = ("mask",)
    learning_rate = 1e-3

    @classmethod
    def fit(cls, images: np.ndarray, truth: np.ndarray, training: Training) -> Self:
        told = training.told if isinstance(training.told, DiffusionLearner) else DiffusionLearner()
        run, target = replace(training.run, ema_decay=told.ema_decay), Masks(len(training.classes), coding=told.coding)
        shape = (target.channels, *images.shape[1:3])
        config = denoiser_config(told)
        network: Backbone = drawn(lambda: registered("backbone", told.backbone).build(config, SPECS, shape), run)
        average = train(
            network, denoising_loss(config, network, _batches(images, truth, training, target), run.device), run
        )
        network.load_state_dict(average or {}, strict=False)
        record = DenoiserRecord(SPECS, DenoiserTraining(
            told.prediction, told.schedule, told.train_timesteps, "concat", shape, target="masks", backbone=told.backbone
        ))  # fmt: skip
        model = DiffusionModel(
            target, network.freeze(run.device), ConditionSet(()), record, run.device, run.checkpoints
        )
        return cls(model, told, target.classes)

    def predict(self, images: np.ndarray, ids: Sequence[str] = ()) -> np.ndarray:
        return self.sure_masks(images)[0]

    def sure_masks(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How sure a class is: the share of samples that have it."""
        parts = [self._joined(images[i : i + _BATCH]) for i in range(0, len(images), _BATCH)]
        if not parts:
            return np.empty(images.shape[:3], np.uint8), np.empty(images.shape[:3], np.float32)
        masks, agreement = (np.concatenate([part[name] for part in parts]) for name in ("mask", AGREEMENT))
        return masks, agreement

    def chances(self, images: np.ndarray) -> np.ndarray:
        """Shares of the samples."""
        drawn, _ = self._drawn(images)
        masks = np.stack([sample["mask"] for sample in drawn.samples])
        return np.stack([(masks == number).mean(0, dtype=np.float32) for number in range(self.classes + 1)], 1)

    def _joined(self, images: np.ndarray) -> Arrays:
        drawn, program = self._drawn(images)
        return registered("reduce", self.told.reduce)(drawn, program.reduce)

    def _drawn(self, images: np.ndarray) -> tuple[Drawn, Program]:
        multiple = self.model.network.multiple
        if any(side % multiple for side in images.shape[1:3]):
            raise HistoloomError(f"The learner 'diffusion' reads tiles whose sides are multiples of {multiple} px.")
        training = replace(self.model.record.training, shape=(self.model.network.channels, *images.shape[1:3]))
        model = replace(self.model, record=replace(self.model.record, training=training))
        given = Conditions(map=2 * to_unit(images, self.model.device) - 1)
        rows = Rows(
            np.array([_seed(image) for image in images]), given, given.each(lambda value: torch.zeros_like(value[:1]))
        )
        program = Program(samples=self.told.samples, reduce={"name": self.told.reduce})
        config = Sample(scheduler=self.told.scheduler, steps=self.told.sampling_steps, guidance=1.0)
        return Drawn(model, config, rows, program), program

    def save(self, folder: Path) -> None:
        save_denoiser(self.model.network, self.model.record, folder)
        write_json(folder / _FACTS, {"told": self.told.model_dump(mode="json"), "classes": self.classes})

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        facts, (network, record) = read_json(folder / _FACTS), load_denoiser(folder, device)
        told, classes = DiffusionLearner(**facts["told"]), facts["classes"]
        model = DiffusionModel(Masks(classes, coding=told.coding), network, ConditionSet(()), record, device, folder)
        return cls(model, told, classes)


def denoiser_config(told: DiffusionLearner) -> TrainDenoiser:
    """What the learner is told, as a model of a study would be."""
    return TrainDenoiser(
        target={"name": "masks", "coding": told.coding}, conditions=("picture",),
        **told.model_dump(include={*TrainDenoiser.model_fields} & {*DiffusionLearner.model_fields}),
    )  # fmt: skip


def _batches(
    images: np.ndarray, masks: np.ndarray, training: Training, target: Masks
) -> Callable[[int, torch.Generator], tuple[torch.Tensor, Conditions]]:
    """Masks as data, with their tiles."""
    run = training.run

    def batches(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Conditions]:
        index = training.batch(step, len(images)).numpy()
        shown, truth = to_unit(images[index], run.device), torch.from_numpy(masks[index])
        shown, truth = augmented(shown, generator, truth, training.augmentation)
        return target.encode({"mask": truth.numpy()}).to(run.device), Conditions(map=2 * shown - 1)

    return batches


def _seed(image: np.ndarray) -> np.uint64:
    """Of a tile's noise: the same for the same tile, wherever it stands."""
    return np.uint64(int.from_bytes(hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()[:8], "big"))
