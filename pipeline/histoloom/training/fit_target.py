"""The fits of targets that train a network: an autoencoder for latents."""

from __future__ import annotations

from histoloom.conditions.condition import FitJob, Fitted
from histoloom.data.lineage import Lineage, lineage_of
from histoloom.data.mapped import unpacked_tiles
from histoloom.data.rows import val_rows
from histoloom.training.autoencoder import tiles_for_one_measured, train_autoencoder
from histoloom.training.curves import curves
from histoloom.training.run import TrainingRun


def fit_latents(job: FitJob) -> Fitted:
    """An autoencoder trained on train tiles, or the one that params name, with the scale of its latents."""
    config = job.params.train_autoencoder
    with curves(job.curves) as log:
        run = TrainingRun(
            "train_autoencoder",
            config.steps,
            config.learning_rate,
            job.params.seed,
            job.checkpoints,
            config.checkpoint_every,
            warmup_steps=20,
            mixed_precision=config.mixed_precision,
            device=job.device,
            resume_from=config.resume_from,
            log=log,
            processes=job.processes,
            batch_size=config.batch_size,
        )
        val = job.store.read(val_rows(job.store)) if config.patience else None
        if config.steps or config.decoder_steps:
            images = unpacked_tiles(job.store, job.rows, job.checkpoints)
            train_autoencoder(config, images, run, job.folder, val)
        else:
            looked_at = (
                job.rows.iloc[:: tiles_for_one_measured(len(job.rows))]
                if config.scale == "measured"
                else job.rows.iloc[:0]
            )
            train_autoencoder(config, job.store.read(looked_at), run, job.folder)
    lineage = Lineage() if config.init == "scratch" else lineage_of(config.init, "autoencoder", config.revision)
    found = {"taken_step": run.best, "rebuilt_kid_of_val": run.measured} if run.measured else {}
    return Fitted(metrics=found, lineage=lineage | job.lineage)
