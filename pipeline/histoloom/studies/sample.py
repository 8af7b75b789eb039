"""Sample the plan's parts as tasks on the cluster."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.cluster import uses_torch
from histoloom.conditions.encode import batch, captions_read, load_conditions, null
from histoloom.config import Params
from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.config.program import Program
from histoloom.data.commit import commit_part
from histoloom.data.plan import PLAN, planned_masks, planned_tiles
from histoloom.data.schema import SYNTHETIC_ROW, write_rows
from histoloom.data.store import TileWriter, specs_of
from histoloom.registry import registered
from histoloom.sampling.diffusion_model import (
    check_distilled,
    generator_sha256,
    lineage_of_models,
    load_diffusion_model,
    sampling_facts,
)
from histoloom.sampling.drawn import Drawn, Rows
from histoloom.sampling.part_tiles import PartTiles
from histoloom.studies.stage_work import Work


def run(work: Work) -> None:
    """Sample every part of the plan. Predictions have a store of their own; each store has the generator's lineage, keyed by its sha256."""
    params, study, plan, models = work.params, work.study, work.study.plan, work.study.models
    check_distilled(models, params.sample, "sample")
    rows = pd.read_parquet(plan / PLAN, columns=["part", "purpose", "caption"])
    names = sorted(rows["part"].unique())
    identity = generator_sha256(models)
    jobs = [
        SamplePart(name, plan.resolve(), models.resolve(), identity, params, work.device, work.parts.resolve())
        for name in names
    ]
    with work.pool(len(jobs)) as call:
        infos = call(sample_part, jobs, "sample")
    predicted = {*rows["part"][rows["purpose"] == "predict"]}
    lineage = {"lineage.json": {identity: lineage_of_models(models)}}
    work.promote_parts([name for name in names if name not in predicted], study.synthetic, lineage)
    work.promote_parts(sorted(predicted), study.predicted, lineage)
    count = {name: info["tiles"] for name, info in zip(names, infos)}
    metrics = {
        "tiles": sum(count.values()),
        "predicted": sum(count[name] for name in predicted),
        "parts": len(names),
        "generator_sha256": identity,
    }
    record = read_denoiser_record(models / "denoiser")
    assert record is not None, "train_denoiser writes one"
    texts = tuple(spec for spec in record.conditions if spec.name == "text")
    metrics |= captions_read(load_conditions(texts, 0, models / "encoders"), rows["caption"], "sample")
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
    program, tiles = Program.read(plan["program"].iloc[0]), PartTiles(plan, job.plan, job.part)
    given, nulls = tiles.given(model), null(tiles.given(model), model.specs)
    own = tiles.given_inputs(model) if program.start.inverted else None
    inputs = tiles.inputs(model.target.reads)
    masks = {name: planned_tiles(job.plan, job.part, name) for name in planned_masks(job.plan)}
    with ExitStack() as stack:
        writer: TileWriter | None = None
        for _, rows in plan.groupby("batch"):
            index = np.resize(rows.index.to_numpy(), params.plan.batch_size)  # the last microbatch is padded, then cut
            batch_ = Rows(
                plan["seed"].to_numpy()[index],
                batch(given, model.specs, index),
                nulls,
                {name: values[index] for name, values in inputs.items()},
                None if own is None else batch(own, model.specs, index),
            )
            drawn = Drawn(model, params.sample, batch_, program)
            made = registered("reduce", program.reduce.name)(drawn, program.reduce)
            arrays = {name: masks[name][index] for name in masks if name not in made} | made
            if writer is None:
                writer = stack.enter_context(TileWriter(folder, specs_of(arrays)))
            for place in range(len(rows)):
                writer.add(**{name: values[place] for name, values in arrays.items()})
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
        ancestors=[sorted({*pair} - {None}) for pair in zip(plan["split_group"], plan["input_group"])],
    )
