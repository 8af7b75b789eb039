"""Weave whole slides, each as one canvas of blocks on the cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.data.commit import commit_part, link_tree, read_record, write_json
from histoloom.data.manifest import read_manifest
from histoloom.sampling.diffusion_model import check_distilled, generator_sha256, lineage_of_models
from histoloom.sampling.slide import LoadModel, Weaver, weave_slide
from histoloom.studies.named_files import files_of
from histoloom.studies.stage_work import Work


def run(work: Work) -> None:
    """Weave every slide that params state and publish them, with the generator's lineage.

    Raises
    ------
    HistoloomError
        for a slide smaller than a window, a mask whose classes the model doesn't know, a full disk; what was
        committed is kept.
    """
    study = [*work.study.links.values()][-1]
    params, models = study.params, study.models
    slides, lineage = params.sample_slides.slides, {}
    parts: dict[str, str] = {}
    metrics = {}
    if slides:
        check_distilled(read_denoiser_record(models / "denoiser"), params.sample_slides, "sample_slides")
        identity, manifest = generator_sha256(models), read_manifest(params.tile)
        lineage = {identity: lineage_of_models(models)}
        tables = files_of(study, "train_encoders")
        attention, precision = params.train_denoiser.attention, params.sample_slides.precision
        load = LoadModel(models.resolve(), identity, attention, work.device, precision)
        weaver = Weaver(study, params, load, manifest, tables, work.root.resolve(), work.code)
        for slide in slides:
            parts[slide.name] = weaver.part(slide)
            record = read_record(work.parts / parts[slide.name])
            if record is None:
                record = commit_part(work.parts, parts[slide.name], weave_slide(slide, weaver, work.pool))
            metrics[slide.name] = record["info"]

    def publish(staged: Path) -> None:
        for name, part in parts.items():
            link_tree(work.parts / part, staged / name)
        write_json(staged / "lineage.json", lineage)

    work.promote(publish, study.woven)
    work.keep_parts(list(parts.values()))
    shutil.rmtree(work.root / "canvases", ignore_errors=True)  # every slide is committed
    work.write_metrics({"slides": metrics})
