"""Fit the conditions that learn something: a CLIP for text, a VAE for RNA, an encoder of tiles, a vocabulary of genotypes."""

from __future__ import annotations

from pathlib import Path

from histoloom.conditions.condition import FitJob, Fitted
from histoloom.conditions.encode import FACTS
from histoloom.data.commit import write_json
from histoloom.data.lineage import Lineage
from histoloom.data.mapped import discard_unpacked
from histoloom.data.rows import train_rows
from histoloom.registry import PLACES, registered
from histoloom.studies.stage_work import Work


def run(work: Work) -> None:
    """Fit the conditions in use to the train split alone."""
    store, device, curves = work.study.real(), work.training_device(), work.reports / "curves"

    def write(folder: Path) -> None:
        metrics: dict[str, object] = {}
        facts: dict[str, object] = {}
        lineage = Lineage()
        curves.mkdir(parents=True, exist_ok=True)
        rows, processes = train_rows(store), work.study.cluster.training_processes
        job = FitJob(work.params, store, rows, device, folder, work.root / "checkpoints", curves, processes)
        for name in work.params.train_denoiser.encoded:
            if (fitted := _fitted(name, job)) is not None:
                facts[name], metrics[name] = fitted.facts, fitted.metrics
                lineage |= fitted.lineage
        lineage.save(folder)
        write_json(folder / FACTS, facts)
        work.write_metrics(metrics)

    work.promote(write, work.study.encoders)
    discard_unpacked(work.root / "checkpoints")


def _fitted(name: str, job: FitJob) -> Fitted | None:
    trains = name in PLACES["condition_fit"]
    return registered("condition_fit", name)(job) if trains else registered("condition", name).fit(job)
