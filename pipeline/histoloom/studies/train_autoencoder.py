"""Train, fine-tune or load the autoencoder, and measure what it gives back."""

from __future__ import annotations

from pathlib import Path

from histoloom.config.package import packaged
from histoloom.data.lineage import Lineage, read_lineage
from histoloom.data.lineage_match import grid_of
from histoloom.data.rows import train_rows, val_rows
from histoloom.data.store import TileStore
from histoloom.registry import registered
from histoloom.studies.stage_work import Work
from histoloom.targets.latents import Latents
from histoloom.targets.target import Target
from histoloom.training.autoencoder import reconstruction, reconstruction_picture, train_autoencoder
from histoloom.training.curves import curves
from histoloom.training.loop import Log, TrainingRun


def run(work: Work) -> None:
    """Make the target: an autoencoder of the train tiles; of pixels there is none. Either way, measure what it gives back of val tiles."""
    params, store, reports = work.params, work.study.real(), work.reports

    def write(folder: Path) -> None:
        with curves(reports / "curves") as log:
            if params.train_denoiser.target == "latents":
                target: Target = _trained(work, store, folder, log)
            else:
                target = registered("target", params.train_denoiser.target).load(folder, work.device)
                Lineage().save(folder)
        images = store.read(val_rows(store))
        metrics, rebuilt = reconstruction(target, images)
        reconstruction_picture(images, rebuilt).save(reports / "reconstruction.png")
        work.write_metrics(dict(metrics))

    reports.mkdir(parents=True, exist_ok=True)
    work.promote(write, work.study.autoencoder)


def _trained(work: Work, store: TileStore, folder: Path, log: Log) -> Latents:
    params, config, rows = work.params, work.params.train_autoencoder, train_rows(store)
    run = TrainingRun(
        "train_autoencoder",
        config.steps,
        config.learning_rate,
        params.seed,
        work.root / "checkpoints",
        config.checkpoint_every,
        warmup_steps=20,
        mixed_precision=config.mixed_precision,
        device=work.training_device(),
        resume_from=config.resume_from,
        log=log,
    )
    target = train_autoencoder(config, store.read(rows), run, folder)
    lineage = Lineage() if config.init == "scratch" else read_lineage(packaged(config.init, "autoencoder"))
    (lineage | Lineage.trained_on(rows, grid_of(params.tile.split))).save(folder)
    return target
