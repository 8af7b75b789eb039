"""Time of the `sample` stage's own path, over that of its denoiser forwards and decodes alone.

Both run the same microbatches at the demo's sizes, on one torch thread, with the models loaded. The pipeline also
encodes the conditions, draws the noise, guides, steps the solver, and writes, hashes and syncs its parts. The models
are trained for a step: they take the same time. And the forwards alone on a worker of dask's as it comes, over those on
a worker as the pipeline has it; on a GPU the path without CUDA graphs, over that with them.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from benchmarks.inputs import drawn_slides
from benchmarks.run import arguments, chip, report, seconds
from benchmarks.studies import Study
from histoloom.cluster import one_thread, open_pool, uses_torch
from histoloom.conditions.batch import cat
from histoloom.conditions.encode import batch, null
from histoloom.config import Cluster, Params, load_params
from histoloom.sampling.chain import Link
from histoloom.sampling.diffusion_model import DiffusionModel, generator_sha256, load_diffusion_model
from histoloom.studies.sample import SamplePart, sample_part

CONDITIONS = ["label", "text"]
GPU_BATCH = 256
AS_DASK_COMES = {"MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "65536", "MALLOC_ARENA_MAX": "16"}
"""What dask sets, and what glibc leaves the others at."""


def demo_study(root: Path, tiles: int, size: int, steps: int) -> Study:
    """A study of drawn slides with models of the demo's sizes, trained for a step; sampled as a model that isn't distilled is."""
    demo = load_params(Path(__file__).parent.parent / "params.yaml").model_dump(
        mode="json", exclude_computed_fields=True
    )
    rows, tile = drawn_slides(root)
    params = {
        "tile": tile | {"tile_px": demo["tile"]["tile_px"]},
        "train_encoders": {"text": demo["train_encoders"]["text"] | {"steps": 1}},
        "train_autoencoder": demo["train_autoencoder"] | {"steps": 1},
        "train_denoiser": demo["train_denoiser"]
        | {"steps": 1, "few_steps": False, "conditions": CONDITIONS, "drop": {}},
        "plan": {"target": "none", "evaluation_tiles": tiles, "batch_size": size},
        "sample": {"steps": steps, "guidance": 1.5, "precision": demo["sample"]["precision"]},
    }
    for row in rows:
        del row["instances"]
        row["split"] = "val" if row["split"] == "test" else "train"
    return Study(root / "study", params, rows, {}, workers=0)


def links_of(models: Path, params: Params, device: str) -> dict[str, Link]:
    """The study's one model, as `sample` runs it."""
    sha256 = generator_sha256(models)
    return {name: Link(name, models, sha256, "auto", device, params.sample) for name in params.run_models}


@torch.inference_mode()
def bare(model: DiffusionModel, plan: pd.DataFrame, size: int, steps: int) -> None:
    """The forwards and decodes that the plan takes, and nothing else."""
    training = model.record.training
    latents = torch.zeros(2 * size, *training.shape)
    arrays = model.conditions.arrays(plan.head(size), lambda _: None)
    nulls = null(arrays, model.specs).each(lambda value: value.expand(size, *value.shape[1:]))
    given = cat([batch(arrays, model.specs, plan.index[:size]), nulls]).to(chip())
    latents, times = latents.to(chip()), torch.full((2 * size,), 500, device=chip())
    for _ in range(-(-len(plan) // size)):
        for _ in range(steps):
            model.network(latents, times, given)
        model.target.model.decode(latents[:size])


def without_graphs(model: DiffusionModel, work: Callable[[Path], None], parts: Path) -> None:
    """The same, the denoiser's kernels started one by one; on a GPU alone, elsewhere they are anyway."""
    graphed = model.network._run
    model.network._run = graphed.forward
    try:
        work(parts)
    finally:
        model.network._run = graphed


@dataclass(frozen=True)
class Forwards:
    """What a worker is asked to time: forwards and decodes of this many microbatches."""

    models: Path
    precision: str
    plan: pd.DataFrame
    size: int
    steps: int
    repeats: int


@uses_torch
def forwards(job: Forwards) -> float:
    """CPU seconds of the process, once it is warm."""
    model = load_diffusion_model(job.models, generator_sha256(job.models), "auto", chip(), job.precision)
    bare(model, job.plan.head(job.size), job.size, job.steps)
    return min(seconds(lambda: bare(model, job.plan, job.size, job.steps)).cpu for _ in range(job.repeats))


def on_a_worker(job: Forwards, malloc: dict[str, str]) -> float:
    """The same on a worker that gives freed memory back as this says; where it says nothing, as the pipeline has it."""
    before = {name: os.environ.pop(name) for name in AS_DASK_COMES if name in os.environ}
    try:
        os.environ.update(malloc)
        with open_pool(Cluster(workers=1), tasks=1) as run:
            return run(forwards, [job], "forwards, as dask comes" if malloc else "forwards")[0]
    finally:
        for name in AS_DASK_COMES:  # which the pool leaves set
            os.environ.pop(name, None)
        os.environ.update(before)


def main() -> None:
    options = arguments(__doc__)
    microbatches, steps, repeats = (1, 2, 2) if options.smoke else (2, 20, 5)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        demo = load_params(Path(__file__).parent.parent / "params.yaml")
        size = 4 if options.smoke else demo.plan.batch_size if chip() == "cpu" else GPU_BATCH
        study = demo_study(root, microbatches * size, size, steps)
        study.params["sample"]["guidance_interval"] = [0, 1]  # so that each step has the bare forward's two branches
        study.train()
        params, models, plan = Params.model_validate(study.params), study.folder / "models", study.plan
        sha256, links = generator_sha256(models), links_of(models, params, chip())
        model = load_diffusion_model(models, sha256, "auto", chip(), demo.sample.precision)

        def sample(parts: Path) -> None:
            for part in sorted(plan["part"].unique()):
                sample_part(SamplePart(part, study.folder / "data/plan", links, sha256, params, parts))

        with one_thread():
            bare(model, plan.head(size), size, steps)  # the first forwards take longer
            works = {"ours": sample, "bare": lambda _: bare(model, plan, size, steps)}
            if chip() == "cuda":
                works["plain"] = partial(without_graphs, model, sample)
            turns = [
                {name: seconds(partial(work, root / f"{name}-{turn}")).wall for name, work in works.items()}
                for turn in range(repeats)
            ]
        job = Forwards(models, demo.sample.precision, plan, size, steps, repeats)
        as_dask = on_a_worker(job, AS_DASK_COMES) / on_a_worker(job, {})
    ratios = {"time_over_bare_forward": ("ours", "bare"), "time_without_graphs_over_ours": ("plain", "ours")}
    report(
        "sampling",
        options.smoke,
        {"tiles": len(plan), "batch_size": size, "steps": steps, "guidance": params.sample.guidance}
        | {"channels": params.train_denoiser.channels, "tile_px": params.tile.tile_px, "repeats": repeats},
        {
            key: statistics.median(turn[over] / turn[under] for turn in turns)
            for key, (over, under) in ratios.items()
            if over in works
        }
        | {"forward_as_dask_comes_over_ours": as_dask},
        {
            key: statistics.median(turn[name] for turn in turns) / len(plan)
            for key, name in (("s_per_tile", "ours"), ("s_per_tile_bare", "bare"))
        },
        options.json,
    )


if __name__ == "__main__":
    main()
