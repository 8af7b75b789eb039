"""Weave whole slides, each as one canvas of blocks on the cluster."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from histoloom.config import WovenSlide
from histoloom.config.base import Solved
from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.config.file_keys import GENERATED
from histoloom.data.commit import commit_part, link_tree, read_record, write_json
from histoloom.data.manifest import read_manifest
from histoloom.data.study_folder import Study
from histoloom.sampling.diffusion_model import check_distilled, generator_sha256, lineage_of_models
from histoloom.sampling.slide import weave_slide
from histoloom.sampling.weaver import LoadModel, Weaver
from histoloom.slides.convert import SUFFIXES, convert
from histoloom.slides.woven import CONDITION, SLIDE
from histoloom.studies.named_files import files_of
from histoloom.studies.stage_work import Work

_FILES = "files"
"""In the part of another format: what goes beside the slide."""


def run(work: Work) -> None:
    """Weave every slide that params state and publish them, with the generator's lineage.

    Raises
    ------
    HistoloomError
        for a slide smaller than a window, a mask whose classes the model doesn't know, a full disk; what was
        committed is kept.
    """
    *before, study = work.study.links.values()
    slides, lineage = study.params.sample_slides.slides, {}
    parts: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    metrics = {}
    if slides:
        weaver = _weaver(work, study)
        if before and any(slide.mask == GENERATED for slide in slides):
            weaver = replace(weaver, masks=_weaver(work, before[-1]))
        lineage = {weaver.identity(slide): _lineage(slide, study, before) for slide in slides}
        for slide in slides:
            parts[slide.name] = weaver.part(slide)
            record = read_record(work.parts / parts[slide.name])
            if record is None:
                record = commit_part(work.parts, parts[slide.name], weave_slide(slide, weaver, work.pool))
            metrics[slide.name] = record["info"]
            formats = study.params.sample_slides.other_formats
            others += [(slide.name, _in_format(work.parts, parts[slide.name], each)) for each in formats]

    def publish(staged: Path) -> None:
        for name, part in parts.items():
            link_tree(work.parts / part, staged / name)
        for name, part in others:
            link_tree(work.parts / part / _FILES, staged / name)
        write_json(staged / "lineage.json", lineage)

    work.promote(publish, study.woven)
    work.keep_parts([*parts.values(), *(part for _, part in others)])
    shutil.rmtree(work.root / "canvases", ignore_errors=True)  # every slide is committed
    work.write_metrics({"slides": metrics})


def _in_format(parts: Path, woven: str, form: str) -> str:
    """The name of the part that holds a woven slide in another format; made, unless it is there."""
    name, _, key = woven.rpartition("@")
    part = f"{name}.{form}@{key}"

    def write(folder: Path) -> None:
        (folder / _FILES).mkdir()
        mask = parts / woven / CONDITION
        labels = {mask.stem: mask} if form == "ome-zarr" and mask.is_file() else {}
        convert(parts / woven / SLIDE, folder / _FILES / Path(SLIDE).with_suffix(SUFFIXES[form]), labels)

    commit_part(parts, part, write)
    return part


def _weaver(work: Work, study: Study) -> Weaver:
    """What weaves by a study's model. A model of masks is run as its own section `sample` says."""
    params, models = study.params, study.models
    if not params.sample_slides.slides:
        own = {name: getattr(params.sample, name) for name in Solved.model_fields}
        params = params.model_copy(update={"sample_slides": params.sample_slides.model_copy(update=own)})
    check_distilled(read_denoiser_record(models / "denoiser"), params.sample_slides, "sample_slides")
    attention, precision = params.train_denoiser.attention, params.sample_slides.precision
    load = LoadModel(models.resolve(), generator_sha256(models), attention, work.device, precision)
    tables = files_of(study, "train_encoders")
    return Weaver(study, params, load, read_manifest(params.tile), tables, work.root.resolve(), work.code)


def _lineage(slide: WovenSlide, study: Study, before: list[Study]) -> dict:
    """What the models saw that a slide is made by."""
    of_mask = [before[-1].models] if slide.mask == GENERATED else []
    return lineage_of_models(*of_mask, study.models).record
