"""What the `sample` stage does with a study."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.conditions.bus import Conditions
from pipeline.conditions.encode import Encoders, batch, load_encoders, null
from pipeline.config import Params, Sample
from pipeline.data.commit import commit_part, digest, write_json
from pipeline.data.schema import SYNTHETIC_ROW, write_rows
from pipeline.data.store import TileWriter
from pipeline.diffusion.noise import latent_noise
from pipeline.diffusion.sampler import make_scheduler, sample_latents
from pipeline.models.autoencoder import LatentCodec, load_codec
from pipeline.models.denoiser import load_denoiser
from pipeline.models.lineage import Lineage, model_sha256, read_lineage

_MODELS = ("autoencoder", "denoiser", "encoders")


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


@dataclass(frozen=True)
class Generator:
    """The loaded models of one generator."""

    codec: LatentCodec
    unet: torch.nn.Module
    encoders: Encoders
    training: dict
    device: str

    def latents(self, seeds: np.ndarray, given: Conditions, nothing: Conditions, config: Sample) -> torch.Tensor:
        """Sample one microbatch; (b, c, h, w) on the device."""
        facts = self.training
        shape = (facts["latent_channels"], facts["latent_px"], facts["latent_px"])
        noise = torch.from_numpy(latent_noise(seeds, shape)).to(self.device)
        scheduler = make_scheduler(
            config.scheduler,
            prediction=facts["prediction"],
            schedule=facts["schedule"],
            train_timesteps=facts["train_timesteps"],
        )
        return sample_latents(
            self.unet,
            scheduler,
            noise,
            given.to(self.device),
            nothing.to(self.device),
            steps=config.steps,
            guidance=config.guidance,
        )


@lru_cache(maxsize=1)
def load_generator(
    models: Path, sha256: str, classes: tuple[str, ...], conditions: tuple[str, ...], attention: str, device: str
) -> Generator:
    """Load a generator once a process; `sha256` keys the cache, so that new weights are loaded anew."""
    unet, _, training = load_denoiser(models / "denoiser", device, attention)
    encoders = load_encoders(classes, conditions, models / "encoders")
    return Generator(load_codec(models / "autoencoder", device), unet, encoders, training, device)


def study_generator(params: Params, models: Path, device: str, sha256: str | None = None) -> Generator:
    """The generator that params describe, from the folder of the study's models."""
    denoiser = params.train_denoiser
    sha256 = sha256 or generator_sha256(models, denoiser.conditions)
    return load_generator(models, sha256, params.tile.labels.classes, denoiser.conditions, denoiser.attention, device)


def generator_sha256(models: Path, conditions: tuple[str, ...]) -> str:
    """The identity of autoencoder, denoiser and encoders together."""
    return digest([model_sha256(models / name) for name in _MODELS] + list(conditions))


def sample_part(job: SamplePart) -> dict:
    """Make one part of the plan, unless it is there."""
    return commit_part(job.parts, job.part, lambda folder: _write_part(job, folder))["info"]


sample_part.uses_torch = True


def _write_part(job: SamplePart, folder: Path) -> dict:
    params = job.params
    plan = pd.read_parquet(job.plan, filters=[("part", "==", job.part)])
    generator = study_generator(params, job.models, job.device, job.generator_sha256)
    arrays = generator.encoders.arrays(plan)
    with TileWriter(folder, params.tile.tile_px) as writer:
        for _, rows in plan.groupby("batch"):
            index = np.resize(rows.index.to_numpy(), params.plan.batch_size)  # the last microbatch is padded, then cut
            given, nothing = _conditions(arrays, index)
            seeds = plan["seed"].to_numpy()[index]
            images = generator.codec.decode(generator.latents(seeds, given, nothing, params.sample))
            for image in images[: len(rows)]:
                writer.add(image=image)
    write_rows(_rows(plan, job), folder / "rows.parquet", SYNTHETIC_ROW)
    return {"tiles": len(plan)}


def _conditions(arrays: dict[str, np.ndarray], index: np.ndarray) -> tuple[Conditions, Conditions]:
    given, one = batch(arrays, index), null(arrays)
    return given, one.each(lambda value: value.expand(len(index), *value.shape[1:]))


def _rows(plan: pd.DataFrame, job: SamplePart) -> pd.DataFrame:
    sampling = job.params.sample
    return plan.assign(
        source="synthetic",
        slide_id="",
        patient_id="",
        x_level0_px=-1,
        y_level0_px=-1,
        mpp=job.params.tile.mpp,
        tissue_fraction=np.nan,
        generator_sha256=job.generator_sha256,
        guidance=sampling.guidance,
        recipe=f"{sampling.scheduler}-{sampling.steps}",
    )


def sample_study(
    params: Params,
    work,
    device: str,
    pool: Callable[[int], AbstractContextManager],
    plan: Path = Path("data/plan/plan.parquet"),
    models: Path = Path("models"),
    output: Path | str = "data/synthetic",
    reports: Path = Path("reports/sample"),
) -> dict:
    """Sample every part of the plan and publish the store, with the generator's lineage keyed by its sha256."""
    table = pd.read_parquet(plan, columns=["part"])
    names = sorted(table["part"].unique())
    identity = generator_sha256(models, params.train_denoiser.conditions)
    jobs = [
        SamplePart(name, plan.resolve(), models.resolve(), identity, params, device, work.parts.resolve())
        for name in names
    ]
    with pool(len(jobs)) as run:
        infos = run(sample_part, jobs, "sample")
    lineage = Lineage()
    for name in _MODELS:
        lineage |= read_lineage(models / name)
    work.promote_parts(names, output, {"lineage.json": {identity: lineage.record}})
    metrics = {"tiles": sum(info["tiles"] for info in infos), "parts": len(names), "generator_sha256": identity}
    write_json(reports / "metrics.json", metrics)
    return metrics


def estimate(params: Params, rows: int, models: Path, device: str) -> dict[str, float] | None:
    """Seconds and MiB that `rows` tiles would take on one worker, from timing one step of one microbatch.

    Returns
    -------
    None where there is no trained generator yet.
    """
    if not (models / "denoiser" / "conditions.json").is_file():
        return None
    size = params.plan.batch_size
    generator = study_generator(params, models, device)
    table = pd.DataFrame({"label": [None] * size, "caption": [""] * size})
    given, nothing = _conditions(generator.encoders.arrays(table), np.arange(size))
    one_step = params.sample.model_copy(update={"steps": 1})
    generator.latents(np.arange(size), given, nothing, one_step)
    start = time.perf_counter()
    latents = generator.latents(np.arange(size), given, nothing, one_step)
    stepped = time.perf_counter()
    generator.codec.decode(latents)
    decoded = time.perf_counter()
    per_batch = (stepped - start) * params.sample.steps + (decoded - stepped)
    tile_mib = params.tile.tile_px**2 * 3 / 2**20
    return {"seconds_one_worker": per_batch * -(-rows // size), "mib_at_most": rows * tile_mib}
