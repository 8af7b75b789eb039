"""Train the denoiser on cached latents under their conditions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from histoloom.config.denoiser_record import ConditionSpec
from histoloom.data.lineage import Lineage, lineage_of, read_lineage
from histoloom.studies.stage_work import Work
from histoloom.training.curves import curves
from histoloom.training.denoiser import read_encoded, train_denoiser
from histoloom.training.run import TrainingRun


def run(work: Work) -> None:
    params, device, reports, encoded = work.params, work.training_device(), work.reports, work.study.encoded
    config = params.train_denoiser
    written = json.loads((encoded / "conditions.json").read_text(encoding="utf-8"))
    specs = tuple(ConditionSpec(**s | {"drop": config.drop_of(s["name"])}) for s in written)
    training = TrainingRun(
        "train_denoiser",
        config.steps,
        config.learning_rate,
        params.seed,
        work.root / "checkpoints",
        config.checkpoint_every,
        warmup_steps=config.warmup_steps,
        ema_decay=config.ema_decay,
        mixed_precision=config.mixed_precision,
        device=device,
        resume_from=config.resume_from,
        processes=work.study.cluster.training_processes,
        batch_size=config.batch_size,
    )

    def write(folder: Path) -> None:
        with curves(reports / "curves") as log:
            train_denoiser(config, read_encoded(encoded), specs, replace(training, log=log), folder)
        lineage = Lineage() if config.init == "scratch" else lineage_of(config.init, "denoiser", config.revision)
        (lineage | read_lineage(encoded)).save(folder)
        measured: dict[str, float | int | None] = {"steps": config.steps, "loss_last_100_steps": None}
        for name in ("loss", "classifier_accuracy"):
            if last := [numbers[name] for _, numbers in training.history if name in numbers][-10:]:
                measured[f"{name}_last_100_steps"] = float(np.mean(last))
        work.write_metrics(measured)

    work.promote(write, work.study.denoiser)
