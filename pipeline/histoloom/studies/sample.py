"""Sample the plan's parts as tasks on the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.cluster import uses_torch
from histoloom.conditions.encode import batch, captions_read, load_conditions, null
from histoloom.config import Params
from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.data.commit import commit_part
from histoloom.data.plan import PLAN, planned_masks, planned_tiles
from histoloom.data.schema import SYNTHETIC_ROW, write_rows
from histoloom.data.store import TileWriter, cut_arrays
from histoloom.sampling.diffusion_model import (
    check_distilled,
    generator_sha256,
    lineage_of_models,
    load_diffusion_model,
    sampling_facts,
)
from histoloom.studies.stage_work import Work


def run(work: Work) -> None:
    """Sample every part of the plan and publish the store, with the generator's lineage keyed by its sha256."""
    params, study, plan, models = work.params, work.study, work.study.plan, work.study.models
    check_distilled(models, params.sample, "sample")
    names = sorted(pd.read_parquet(plan / PLAN, columns=["part"])["part"].unique())
    identity = generator_sha256(models)
    jobs = [
        SamplePart(name, plan.resolve(), models.resolve(), identity, params, work.device, work.parts.resolve())
        for name in names
    ]
    with work.pool(len(jobs)) as call:
        infos = call(sample_part, jobs, "sample")
    work.promote_parts(names, study.synthetic, {"lineage.json": {identity: lineage_of_models(models)}})
    metrics = {"tiles": sum(info["tiles"] for info in infos), "parts": len(names), "generator_sha256": identity}
    record = read_denoiser_record(models / "denoiser")
    assert record is not None, "train_denoiser writes one"
    texts = tuple(spec for spec in record.conditions if spec.name == "text")
    captions = pd.read_parquet(plan / PLAN, columns=["caption"])["caption"]
    metrics |= captions_read(load_conditions(texts, 0, models / "encoders"), captions, "sample")
    work.write_metrics(metrics)


@dataclass(frozen=True)
class SamplePart:
    """One task of `sample`: plain data, with paths that every worker can read."""

    part: str
    plan: Path
    models: Path
    generator_sha256: str
    params: Params
    device: str
    parts: Path


@uses_torch
def sample_part(job: SamplePart) -> dict:
    """Make one part of the plan, unless it is there."""
    return commit_part(job.parts, job.part, lambda folder: _write_part(job, folder))["info"]


def _write_part(job: SamplePart, folder: Path) -> dict:
    params = job.params
    plan = pd.read_parquet(job.plan / PLAN, filters=[("part", "==", job.part)])
    settings = (params.train_denoiser.attention, job.device, params.sample.precision)
    model = load_diffusion_model(job.models, job.generator_sha256, *settings)
    arrays = model.conditions.arrays(plan, partial(planned_tiles, job.plan, job.part))
    nulls = null(arrays, model.specs)
    masks = {name: planned_tiles(job.plan, job.part, name) for name in planned_masks(job.plan)}
    made = model.target.arrays(model.record.training.shape)
    kept = cut_arrays(params.tile.tile_px, (name for name in masks if name not in {spec.name for spec in made}))
    with TileWriter(folder, (*made, *kept)) as writer:
        for _, rows in plan.groupby("batch"):
            index = np.resize(rows.index.to_numpy(), params.plan.batch_size)  # the last microbatch is padded, then cut
            given, seeds = batch(arrays, model.specs, index), plan["seed"].to_numpy()[index]
            made_of = model.target.decode(model.latents(seeds, given, nulls, params.sample))
            for place, row in enumerate(rows.index):
                own = {spec.name: masks[spec.name][row] for spec in kept}
                writer.add(**own, **{name: values[place] for name, values in made_of.items()})
    write_rows(_rows(plan, job), folder / "rows.parquet", SYNTHETIC_ROW)
    return {"tiles": len(plan)}


def _rows(plan: pd.DataFrame, job: SamplePart) -> pd.DataFrame:
    sampling = sampling_facts(job.params.sample, job.params.train_denoiser.conditions, job.device)
    return plan.assign(
        source="synthetic",
        slide_id="",
        patient_id="",
        x_level0_px=-1,
        y_level0_px=-1,
        spot_id=None,
        masked="mask" in planned_masks(job.plan),
        tissue_fraction=np.nan,
        generator_sha256=job.generator_sha256,
        window_layout=None,
        **sampling | {"guidance": [sampling["guidance"]] * len(plan)},
        ancestors=[[group] for group in plan["split_group"]],
    )
