"""Train, fine-tune or load the autoencoder, and measure its latents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from histoloom.config.package import packaged
from histoloom.data.lineage import Lineage, read_lineage
from histoloom.data.lineage_match import grid_of
from histoloom.data.rows import train_rows, val_rows
from histoloom.studies.stage_work import Work
from histoloom.training.autoencoder import reconstruction, reconstruction_picture, train_autoencoder
from histoloom.training.curves import curves
from histoloom.training.loop import TrainingRun


def run(work: Work) -> None:
    params, store, device, reports = work.params, work.study.real(), work.training_device(), work.reports
    config = params.train_autoencoder
    rows = train_rows(store)
    training = TrainingRun(
        "train_autoencoder",
        config.steps,
        config.learning_rate,
        params.seed,
        work.root / "checkpoints",
        config.checkpoint_every,
        warmup_steps=20,
        mixed_precision=config.mixed_precision,
        device=device,
        resume_from=config.resume_from,
    )

    def write(folder: Path) -> None:
        with curves(reports / "curves") as log:
            codec = train_autoencoder(config, store.read(rows), replace(training, log=log), folder)
        lineage = Lineage() if config.init == "scratch" else read_lineage(packaged(config.init, "autoencoder"))
        (lineage | Lineage.trained_on(rows, grid_of(params.tile.split))).save(folder)
        images = store.read(val_rows(store))
        metrics, rebuilt = reconstruction(codec, images)
        reconstruction_picture(images, rebuilt).save(reports / "reconstruction.png")
        work.write_metrics(dict(metrics))

    reports.mkdir(parents=True, exist_ok=True)
    work.promote(write, work.study.autoencoder)
