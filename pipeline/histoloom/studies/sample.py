"""Sample the plan's parts as tasks on the cluster."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.cluster import uses_torch
from histoloom.conditions.encode import captions_read, load_conditions
from histoloom.config import Params
from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.config.program import Program
from histoloom.data.commit import commit_part
from histoloom.data.inputs import GROUPS
from histoloom.data.plan import PLAN, planned_masks, planned_tiles
from histoloom.data.schema import PLAN_ROW, SYNTHETIC_ROW, write_rows
from histoloom.data.store import TileWriter, specs_of
from histoloom.data.study_folder import Study
from histoloom.sampling.chain import Link, PartRun
from histoloom.sampling.diffusion_model import check_distilled, generator_sha256, lineage_of_models, sampling_facts
from histoloom.studies.stage_work import Work


def run(work: Work) -> None:
    """Sample every part of the plan. Predictions have a store of their own; each store has the generator's lineage, keyed by its sha256."""
    params, study, plan, links = work.params, work.study, work.study.plan, work.study.run_models
    folders = [link.models for link in links.values()]
    for link in links.values():
        check_distilled(read_denoiser_record(link.models / "denoiser"), link.params.sample, "sample")
    rows = pd.read_parquet(plan / PLAN, columns=["part", "purpose", "caption"])
    names, identity = sorted(rows["part"].unique()), generator_sha256(*folders)
    models = {
        name: Link(
            name,
            link.models.resolve(),
            generator_sha256(link.models),
            link.params.train_denoiser.attention,
            work.device,
            link.params.sample,
        )
        for name, link in links.items()
    }
    jobs = [SamplePart(name, plan.resolve(), models, identity, params, work.parts.resolve()) for name in names]
    with work.pool(len(jobs)) as call:
        infos = call(sample_part, jobs, "sample")
    predicted = {*rows["part"][rows["purpose"] == "predict"]}
    lineage = {"lineage.json": {identity: lineage_of_models(*folders).record}}
    work.promote_parts([name for name in names if name not in predicted], study.synthetic, lineage)
    work.promote_parts(sorted(predicted), study.predicted, lineage)
    count = {name: info["tiles"] for name, info in zip(names, infos)}
    metrics = {
        "tiles": sum(count.values()),
        "predicted": sum(count[name] for name in predicted),
        "parts": len(names),
        "generator_sha256": identity,
    }
    for link in links.values():
        metrics |= _captions_read(link, rows["caption"])
    work.write_metrics(metrics)


def _captions_read(study: Study, captions: pd.Series) -> dict[str, int]:
    record = read_denoiser_record(study.denoiser)
    assert record is not None, "train_denoiser writes one"
    texts = tuple(spec for spec in record.conditions if spec.name == "text")
    return captions_read(load_conditions(texts, 0, study.encoders), captions, "sample")


@dataclass(frozen=True)
class SamplePart:
    """One task of `sample`: plain data, with paths that every worker can read."""

    part: str
    plan: Path
    models: dict[str, Link]
    generator_sha256: str
    params: Params
    parts: Path


@uses_torch
def sample_part(job: SamplePart) -> dict:
    """Make one part of the plan, unless it is there."""
    return commit_part(job.parts, job.part, lambda folder: _write_part(job, folder))["info"]


def _write_part(job: SamplePart, folder: Path) -> dict:
    plan = pd.read_parquet(job.plan / PLAN, filters=[("part", "==", job.part)])
    plan = plan.assign(**{name: None for name in PLAN_ROW.names if name not in plan})  # of an earlier version
    masks = {name: planned_tiles(job.plan, job.part, name) for name in planned_masks(job.plan)}
    size, classes = job.params.plan.batch_size, job.params.tile.masks.classes
    part, start = PartRun(plan, job.plan, job.part, size, classes), 0
    links = job.params.chains()[Program.read(plan["program"].iloc[0]).chain or job.params.sample.chain]
    chain = [job.models[name] for name in links]
    names: set[str] = set()
    with ExitStack() as stack:
        writer: TileWriter | None = None
        for made in part.run(chain):
            count = len(next(iter(made.values())))
            arrays = {name: values[start : start + count] for name, values in masks.items() if name not in made} | made
            if writer is None:
                writer, names = stack.enter_context(TileWriter(folder, specs_of(arrays))), {*arrays}
            for place in range(count):
                writer.add(**{name: values[place] for name, values in arrays.items()})
            start += count
    last = [*links.values()][-1]
    rows = rows_of(plan, last, job.generator_sha256, chain[-1].device, masked="mask" in names)
    write_rows(rows, folder / "rows.parquet", SYNTHETIC_ROW)
    return {"tiles": len(plan)}


def rows_of(plan: pd.DataFrame, params: Params, generator: str, device: str, *, masked: bool) -> pd.DataFrame:
    """The rows of the tiles that are made of a plan's rows, by a generator with this sha256; `params` are those of its last model."""
    sampling = sampling_facts(params.sample, params.train_denoiser.conditions, device)
    return plan.assign(
        source="synthetic",
        slide_id="",
        patient_id="",
        x_level0_px=-1,
        y_level0_px=-1,
        spot_id=None,
        masked=masked,
        tissue_fraction=np.nan,
        generator_sha256=generator,
        window_layout=None,
        **sampling
        | {"guidance": [sampling["guidance"]] * len(plan), "steps": _steps(plan["program"], sampling["steps"])},
        ancestors=[sorted({*groups} - {None}) for groups in zip(*(plan[name] for name in GROUPS))],
    )


def _steps(programs: pd.Series, stated: int) -> list[int]:
    """How many steps of the solver each row's tile may take; one that jumps takes one."""
    jumps = {text: Program.read(text).start.jump for text in programs.unique()}
    return [1 if jumps[text] else stated for text in programs]
