"""Training the denoiser on cached data, under conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from histoloom.backbones.backbone import Backbone
from histoloom.backbones.denoiser import save_denoiser
from histoloom.backbones.few_steps import add_few_steps, check_few_steps
from histoloom.backbones.unet import UNet
from histoloom.conditions.batch import Conditions, augmented, dropped
from histoloom.conditions.encode import batch, null
from histoloom.config import TrainDenoiser
from histoloom.config.denoiser_record import (
    CLASSIFIER,
    ConditionSpec,
    DenoiserRecord,
    DenoiserTraining,
    read_denoiser_record,
)
from histoloom.config.package import packaged
from histoloom.config.train_denoiser import Pictured
from histoloom.data.mapped import JoinedRows, RowArrays, mapped_arrays
from histoloom.errors import HistoloomError
from histoloom.process.process import Process
from histoloom.registry import registered
from histoloom.training.boundary import boundary_weights
from histoloom.training.distil import Batches, distil
from histoloom.training.loop import train
from histoloom.training.noised_classifier import train_noised_classifier
from histoloom.training.prior import make_prior
from histoloom.training.processes import own_rows
from histoloom.training.run import LossFunction, Numbers, TrainingRun, epoch_order, on_device


def read_encoded(folder: Path | str) -> dict[str, JoinedRows]:
    """What `encode` wrote, mapped: data, and the conditions' arrays."""
    parts = [mapped_arrays(path) for path in sorted(Path(folder).glob("*/encoded.safetensors"))]
    pieces = {key: [part[key] for part in parts] for key in parts[0]}
    if "text_index" in pieces:
        starts = np.cumsum([0] + [len(part["text_tokens"]) for part in parts[:-1]])
        pieces["text_index"] = [piece + start for piece, start in zip(pieces["text_index"], starts)]
    return {key: JoinedRows(of, (_read_array, (Path(folder).resolve(), key))) for key, of in pieces.items()}


def _read_array(folder: Path, key: str) -> JoinedRows:
    return read_encoded(folder)[key]


def train_denoiser(
    config: TrainDenoiser,
    arrays: RowArrays,
    specs: tuple[ConditionSpec, ...],
    run: TrainingRun,
    folder: Path,
) -> None:
    """Train on data (n, symmetries, c, ...), one symmetry of each drawn at a step, and save the averaged weights.

    Maps are turned with their tile.

    The loss is the weighted squared error of the prediction (Ho et al. 2020, eq. 14, with weights as params state).
    """
    data = arrays["data"]
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(run.seed)
        model, distilled = _first_model(config, specs, data.shape[2:])
    model = model.to(run.device)
    model.set_attention(config.attention)
    if config.windows_latent_px and (problem := config.windows_fault(data.shape[3], halved=model.multiple)):
        raise HistoloomError(f"train_denoiser.windows_latent_px: {problem}")
    batches = _batches(config, arrays, specs, run)
    if config.prior:
        bound = registered("target", config.target.name).bound
        batches = make_prior(config, model, arrays, specs, bound, run).beside(batches, run.seed)
    if config.distil:
        distil(config, model, batches, null(arrays, specs).to(run.device), specs, run)
    elif config.steps:
        average = train(model, denoising_loss(config, model, batches, run.device), run)
        model.load_state_dict(average or {}, strict=False)
    if config.adapt == "lora":
        model.merge_low_rank()
    if config.few_steps:
        distilled = add_few_steps(_unet(model), packaged(config.init, "denoiser", config.revision))
    training = DenoiserTraining(
        config.prediction,
        config.schedule,
        config.train_timesteps,
        config.map_input if any(spec.shape == "map" for spec in specs) else None,
        tuple(data.shape[2:]),
        distilled=config.distil.steps if config.distil else distilled,
        guidance_inside=not (config.few_steps and config.steps),
        target=config.target.name,
        backbone=config.backbone,
        betas=config.betas,
    )
    save_denoiser(model, DenoiserRecord(specs, training), folder)
    Process.of(training).save(folder, registered("target", config.target.name).bound)
    if config.classifier:
        classes = next(spec.channels for spec in specs if spec.name == "label")
        train_noised_classifier(config.classifier, Process.of(training), arrays, classes, run, folder / CLASSIFIER)


def _first_model(
    config: TrainDenoiser, specs: tuple[ConditionSpec, ...], shape: tuple[int, ...]
) -> tuple[Backbone, int | None]:
    """A new network, or a trained one whose inputs are made to fit these conditions; and to how many steps it was distilled."""
    backbone = registered("backbone", config.backbone)
    if config.init == "scratch":
        return backbone.build(config, specs, shape), None
    source = packaged(config.init, "denoiser", config.revision)
    if config.few_steps:
        check_few_steps(source)
    before = read_denoiser_record(source)
    if before is not None:
        _check_training(config, before.training)
        if before.training.map_input is None:  # it reads no map yet, and may take one in any way
            before = replace(before, training=replace(before.training, map_input=config.map_input))
    known = specs if before is None else before.conditions
    model: Backbone = backbone.load(source, before, config.revision)
    if model.channels != shape[0]:
        raise HistoloomError(
            f"train_denoiser.init diffuses {model.channels} channels, and what is diffused here has {shape[0]}. Take both from one "
            "model."
        )
    model, new = model.refit(known, specs)
    if config.adapt == "lora":
        model.add_low_rank(config.lora_rank, new)
    elif config.adapt == "controlnet":
        model.train_control(new)
    return model, None if before is None else before.training.distilled


def _unet(model: Backbone) -> UNet:
    if not isinstance(model, UNet):
        raise HistoloomError(
            f"train_denoiser.few_steps is of a unet, and backbone is a {type(model).__name__}: set it to false."
        )
    return model


def _check_training(config: TrainDenoiser, training: DenoiserTraining) -> None:
    if training.distilled and (config.steps or config.distil):
        raise HistoloomError(
            f"train_denoiser.init was distilled to {training.distilled} steps, which more training would undo: take it as "
            "it is (steps: 0), or begin from the model that it was distilled from."
        )
    for name in ("target", "backbone", "prediction", "schedule", "betas", "train_timesteps", "map_input"):
        own = config.target.name if name == "target" else getattr(config, name)
        if (known := getattr(training, name)) != own and (name, known) != ("map_input", None):
            raise HistoloomError(
                f"train_denoiser.{name} is {own!r}, and train_denoiser.init was trained with "
                f"{known!r}: use the same, or init: scratch."
            )


def _batches(config: TrainDenoiser, arrays: RowArrays, specs: tuple[ConditionSpec, ...], run: TrainingRun) -> Batches:
    """Clean data of a step's rows, a symmetry of each drawn, with their conditions, some dropped; of windows where params say so."""
    data, nulls, windows = arrays["data"], null(arrays, specs), config.windows_latent_px
    rows = np.arange(len(data))
    if config.class_balanced:
        rows = class_balanced(np.asarray(arrays["label"][rows]))

    def batches(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Conditions]:
        index = rows[epoch_order(run.seed, len(rows), config.batch_size, step).numpy()]
        symmetries = torch.randint(0, data.shape[1], (len(index),), generator=generator).numpy()
        given = _augmented(batch(arrays, specs, index, symmetries), specs, config.augment, generator)
        given = dropped(given, nulls, specs, generator)
        clean = torch.from_numpy(data[index, symmetries]).float()
        if windows:
            side = windows[int(torch.randint(0, len(windows), (1,), generator=generator))]
            clean, given = windowed(clean, given, side, generator)
        return clean.to(run.device), given.to(run.device)

    return batches


def _augmented(
    given: Conditions, specs: tuple[ConditionSpec, ...], most: Mapping[Pictured, float], generator: torch.Generator
) -> Conditions:
    """Noise of a deviation up to `most`, drawn for each row."""
    if not most or given.map is None:
        return given
    levels: dict[str, torch.Tensor] = {n: m * torch.rand(len(given.map), generator=generator) for n, m in most.items()}
    return augmented(given, specs, levels, torch.randn(given.map.shape, generator=generator))


def class_balanced(labels: np.ndarray) -> np.ndarray:
    """Row numbers, those of rarer classes repeated until each class has as many as the largest.

    Parameters
    ----------
    labels : (n, classes) one hot; rows without a label are a class of their own.
    """
    numbers = np.where(labels.any(1), labels.argmax(1), -1)
    most = np.unique(numbers, return_counts=True)[1].max()
    return np.concatenate([np.resize(np.flatnonzero(numbers == k), most) for k in np.unique(numbers)])


def windowed(
    clean: torch.Tensor, given: Conditions, side: int, generator: torch.Generator
) -> tuple[torch.Tensor, Conditions]:
    """Cut a square window from each row's data (b, c, h, w), each at a drawn place, and the same from its map."""
    places = torch.randint(0, clean.shape[3] - side + 1, (len(clean), 2), generator=generator).tolist()

    def cut(rows: torch.Tensor) -> torch.Tensor:
        return torch.stack([row[:, y : y + side, x : x + side] for row, (y, x) in zip(rows, places)])

    return cut(clean), given if given.map is None else replace(given, map=cut(given.map))


def denoising_loss(config: TrainDenoiser, model: Backbone, batches: Batches, device: str) -> LossFunction:
    """The weighted squared error of what the network predicts of batches of clean data."""
    process, kind = Process.of(config), config.loss_weight
    weights = torch.from_numpy(process.loss_weights(kind.kind, kind.gamma, kind.k)).float().to(device)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        clean, given = batches(step, generator)
        noise = torch.randn(clean.shape, generator=on_device(generator, device), device=device)
        times = torch.randint(0, process.train_timesteps, (len(clean),), generator=generator).to(device)
        mine, of_row = own_rows(len(clean)), _row_weights(config, len(clean)).to(device)
        clean, given, noise, times = clean[mine], given.each(lambda rows: rows[mine]), noise[mine], times[mine]
        scales = process.scales_of(times, clean.ndim)
        predicted = model(process.noised(clean, noise, scales), times, given)
        error = (predicted - process.target(clean, noise, scales)).square()
        if kind.boundary:
            error = error * boundary_weights(clean, times / process.train_timesteps, kind.boundary)
        error = error.flatten(1).mean(1)
        return (error * weights[times] * of_row[mine]).mean(), {"mse": error.detach().mean()}

    return loss


def _row_weights(config: TrainDenoiser, rows: int) -> torch.Tensor:
    """Of a batch's rows, (rows,): the second half is the model's own tiles where there are some, and their mean counts beside the first's."""
    weights = torch.ones(rows)
    if config.prior:
        weights[: rows // 2], weights[rows // 2 :] = 2.0, 2.0 * config.prior.weight
    return weights
