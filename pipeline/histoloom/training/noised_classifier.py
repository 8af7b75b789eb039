"""Training a classifier of noised data, which steers sampling by its gradient (Dhariwal & Nichol 2021)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from histoloom.conditions.noised_classifier import NoisedClassifier
from histoloom.config.train_denoiser import LabelClassifier
from histoloom.data.mapped import RowArrays
from histoloom.errors import HistoloomError
from histoloom.process.process import Process
from histoloom.training.loop import train
from histoloom.training.processes import own_rows
from histoloom.training.run import Numbers, TrainingRun, epoch_order, on_device


def train_noised_classifier(
    config: LabelClassifier,
    process: Process,
    arrays: RowArrays,
    classes: tuple[str, ...],
    run: TrainingRun,
    folder: Path,
) -> None:
    """Train on the denoiser's own data (n, symmetries, c, h, w), with noise of a level drawn for each row, and save it.

    Parameters
    ----------
    run : of the denoiser. The classifier's curves come after it, as `classifier_loss` and `classifier_accuracy`.

    Raises
    ------
    HistoloomError
        where fewer than two classes have tiles.
    """
    data, label = arrays["data"], np.asarray(arrays["label"][np.arange(len(arrays["data"]))])
    rows = np.flatnonzero(label.any(1))
    if len(np.unique(label[rows].argmax(1))) < 2:
        raise HistoloomError(
            "train_denoiser.classifier tells labels apart, and the train split has tiles of fewer than two: label more, or leave it out."
        )
    size = min(config.batch_size, len(rows))
    own = _own_run(config, run, size)
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(own.seed)
        model = NoisedClassifier(classes, tuple(data.shape[2:]), config.channels).to(own.device)

    def loss(step: int, generator: torch.Generator) -> tuple[torch.Tensor, Numbers]:
        index = rows[epoch_order(own.seed, len(rows), size, step).numpy()]
        symmetries = torch.randint(0, data.shape[1], (len(index),), generator=generator).numpy()
        times = torch.randint(0, process.train_timesteps, (len(index),), generator=generator)
        mine = own_rows(len(index))
        index, symmetries, times = index[mine], symmetries[mine], times[mine]
        clean = torch.from_numpy(data[index, symmetries]).float().to(own.device)
        noise = torch.randn(clean.shape, generator=on_device(generator, own.device), device=own.device)
        times, wanted = times.to(own.device), torch.from_numpy(label[index].argmax(1)).to(own.device)
        logits = model(process.noised(clean, noise, process.scales_of(times, clean.ndim)), times)
        right = (logits.argmax(1) == wanted).float().mean()
        return torch.nn.functional.cross_entropy(logits, wanted), {"accuracy": right.detach()}

    train(model, loss, own)
    run.history += [(run.steps + step, _named(numbers)) for step, numbers in own.history]
    model.save(folder)


def _own_run(config: LabelClassifier, run: TrainingRun, batch_size: int) -> TrainingRun:
    log = run.log
    return replace(
        run, title="train_denoiser: classifier", steps=config.steps, learning_rate=config.learning_rate,
        warmup_steps=min(run.warmup_steps, config.steps // 10), checkpoints=run.checkpoints / "classifier", ema_decay=None,
        batch_size=batch_size, resume_from=None, history=[], measured=[],
        log=None if log is None else lambda step, numbers: log(run.steps + step, _named(numbers)),
    )  # fmt: skip


def _named(numbers: dict[str, float]) -> dict[str, float]:
    return {f"classifier_{name}": value for name, value in numbers.items()}
