"""Make the target: train, fine-tune or load the autoencoder of latents; and measure what a target gives back."""

from __future__ import annotations

from pathlib import Path

from histoloom.conditions.condition import FitJob, Fitted
from histoloom.config.package import TARGET_FACTS
from histoloom.data.commit import write_json
from histoloom.data.mapped import discard_unpacked
from histoloom.data.rows import train_rows, val_rows
from histoloom.registry import PLACES, registered
from histoloom.studies.stage_work import Work
from histoloom.training.reconstruction import reconstruction, reconstruction_picture


def run(work: Work) -> None:
    """Fit the target to train tiles, and measure what it gives back of val tiles."""
    params, store, reports, name = work.params, work.study.real(), work.reports, work.params.train_denoiser.target.name
    target = registered("target", name)

    def write(folder: Path) -> None:
        job = FitJob(
            params,
            store,
            train_rows(store),
            work.training_device(),
            folder,
            work.root / "checkpoints",
            reports / "curves",
            work.study.cluster.training_processes,
        )
        fitted: Fitted = registered("target_fit", name)(job) if name in PLACES["target_fit"] else target.fit(job)
        fitted.lineage.save(folder)
        if fitted.facts:
            write_json(folder / TARGET_FACTS, dict(fitted.facts))
        loaded = target.load(folder, work.device)
        rows = val_rows(store)
        arrays = {name: store.read(rows, name) for name in target.reads}
        metrics, rebuilt = reconstruction(loaded, arrays)
        reconstruction_picture(arrays, rebuilt).save(reports / "reconstruction.png")
        work.write_metrics({**metrics, **fitted.metrics})

    (reports / "curves").mkdir(parents=True, exist_ok=True)  # for DVC, which misses an output that isn't there
    work.promote(write, work.study.autoencoder)
    discard_unpacked(work.root / "checkpoints")
