"""What the `sample` stage does with a study."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from pipeline.conditions.bus import Conditions, ConditionSpec
from pipeline.conditions.encode import Encoders, batch, captions_read, load_encoders, null
from pipeline.config import Params, Sample, SampleSlides
from pipeline.data.commit import commit_part, digest, write_json
from pipeline.data.plan import PLAN, planned_masks, planned_tiles
from pipeline.data.schema import SYNTHETIC_ROW, write_rows
from pipeline.data.store import TileWriter
from pipeline.diffusion.guidance import Guidance
from pipeline.diffusion.noise import latent_noise
from pipeline.diffusion.sampler import make_scheduler, sample_latents
from pipeline.errors import HistoloomError
from pipeline.models.autoencoder import LatentCodec, load_codec
from pipeline.models.denoiser import load_denoiser, read_conditions
from pipeline.models.lineage import Lineage, model_sha256, read_lineage
from pipeline.models.precision import native

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
    specs: tuple[ConditionSpec, ...]
    encoders: Encoders
    training: dict
    device: str

    def latents(self, seeds: np.ndarray, given: Conditions, nothing: Conditions, config: Sample) -> torch.Tensor:
        """Sample one microbatch of b rows of conditions, `nothing` their nulls in one; (b, c, h, w) on the device."""
        facts = self.training
        shape = (facts["latent_channels"], facts["latent_px"], facts["latent_px"])
        noise = torch.from_numpy(latent_noise(seeds, shape)).to(self.device)
        scheduler = make_scheduler(
            config.scheduler,
            prediction=facts["prediction"],
            schedule=facts["schedule"],
            train_timesteps=facts["train_timesteps"],
        )
        given, nothing = given.to(self.device), nothing.to(self.device)

        names = [spec.name for spec in self.specs]

        @cache  # few steps are guided differently
        def guided(scales: tuple[float, ...]) -> Guidance:
            return Guidance.of(given, nothing, self.specs, dict(zip(names, scales)).__getitem__)

        def guidance(share: float) -> Guidance:
            return guided(tuple(map(config.scale_at(share), names)))

        return sample_latents(self.unet, scheduler, noise, guidance, steps=config.steps)


@lru_cache(maxsize=1)
def load_generator(models: Path, sha256: str, attention: str, device: str, precision: str = "fp32") -> Generator:
    """Load a generator once a process; `sha256` keys the cache, so that new weights are loaded anew."""
    unet, specs, training = load_denoiser(models / "denoiser", device, attention, precision)
    encoders = load_encoders(specs, training["latent_px"], models / "encoders", device)
    codec = load_codec(models / "autoencoder", device, precision)
    return Generator(codec, unet, specs, encoders, training, device)


def generator_sha256(models: Path) -> str:
    """The identity of autoencoder, denoiser and encoders together."""
    return digest([model_sha256(models / name) for name in _MODELS])


def generator_lineage(models: Path) -> dict:
    """What autoencoder, denoiser and encoders saw."""
    lineage = Lineage()
    for name in _MODELS:
        lineage |= read_lineage(models / name)
    return lineage.record


def sample_part(job: SamplePart) -> dict:
    """Make one part of the plan, unless it is there."""
    return commit_part(job.parts, job.part, lambda folder: _write_part(job, folder))["info"]


sample_part.uses_torch = True


def _write_part(job: SamplePart, folder: Path) -> dict:
    params = job.params
    plan = pd.read_parquet(job.plan / PLAN, filters=[("part", "==", job.part)])
    settings = (params.train_denoiser.attention, job.device, params.sample.precision)
    generator = load_generator(job.models, job.generator_sha256, *settings)
    arrays = generator.encoders.arrays(plan, partial(planned_tiles, job.plan, job.part))
    nothing = null(arrays, generator.specs)
    masks = {name: planned_tiles(job.plan, job.part, name) for name in planned_masks(job.plan)}
    with TileWriter(folder, params.tile.tile_px, ("image", *masks)) as writer:
        for _, rows in plan.groupby("batch"):
            index = np.resize(rows.index.to_numpy(), params.plan.batch_size)  # the last microbatch is padded, then cut
            given, seeds = batch(arrays, generator.specs, index), plan["seed"].to_numpy()[index]
            images = generator.codec.decode(generator.latents(seeds, given, nothing, params.sample))
            for place, image in zip(rows.index, images):
                writer.add(image=image, **{name: array[place] for name, array in masks.items()})
    write_rows(_rows(plan, job), folder / "rows.parquet", SYNTHETIC_ROW)
    return {"tiles": len(plan)}


def _rows(plan: pd.DataFrame, job: SamplePart) -> pd.DataFrame:
    sampling = job.params.sample
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
        guidance=written_guidance(sampling, job.params.train_denoiser.conditions),
        recipe=f"{sampling.scheduler}-{sampling.steps}-{native(sampling.precision, job.device)}",
        ancestors=[[group] for group in plan["split_group"]],
    )


def written_guidance(config: Sample | SampleSlides, conditions: tuple[str, ...]) -> str:
    """Guidance as a tile's row states it: 'all=2 within 0.2-0.6', or 'label=2 text=3 within mask 0.2-0.6'."""
    scales, intervals = (
        stated.items() if isinstance(stated, dict) else [("all", stated)]
        for stated in (config.guidance, config.guidance_interval)
    )
    said = " ".join(f"{name}={scale:g}" for name, scale in scales)
    within = [f"{name} {low:g}-{high:g}" for name, (low, high) in intervals if name in ("all", *conditions)]
    return f"{said} within {' '.join(within).removeprefix('all ')}" if within else said


def check_distilled(models: Path, config: Sample | SampleSlides, section: str) -> None:
    """Refuse to step a distilled denoiser otherwise than it was distilled for.

    Guidance is inside where the conditions are those of the teacher; a denoiser that was adapted to others may be guided.
    """
    facts = read_conditions(models / "denoiser")[1]
    steps, inside = facts.get("distilled"), facts.get("guidance_inside", True)
    if steps and ((config.scheduler, config.steps) != ("ddim", steps) or (inside and config.guidance != 1)):
        raise HistoloomError(
            f"The denoiser was distilled to {steps} steps{', with guidance inside' if inside else ''}. Set {section}: "
            f"{{scheduler: ddim, steps: {steps}{', guidance: 1' if inside else ''}}}."
        )


def sample_study(
    params: Params,
    work,
    device: str,
    pool: Callable[[int], AbstractContextManager],
    plan: Path = Path("data/plan"),
    models: Path = Path("models"),
    output: Path | str = "data/synthetic",
    reports: Path = Path("reports/sample"),
) -> dict:
    """Sample every part of the plan and publish the store, with the generator's lineage keyed by its sha256."""
    check_distilled(models, params.sample, "sample")
    names = sorted(pd.read_parquet(plan / PLAN, columns=["part"])["part"].unique())
    identity = generator_sha256(models)
    jobs = [
        SamplePart(name, plan.resolve(), models.resolve(), identity, params, device, work.parts.resolve())
        for name in names
    ]
    with pool(len(jobs)) as run:
        infos = run(sample_part, jobs, "sample")
    work.promote_parts(names, output, {"lineage.json": {identity: generator_lineage(models)}})
    metrics = {"tiles": sum(info["tiles"] for info in infos), "parts": len(names), "generator_sha256": identity}
    texts = tuple(spec for spec in read_conditions(models / "denoiser")[0] if spec.name == "text")
    captions = pd.read_parquet(plan / PLAN, columns=["caption"])["caption"]
    metrics |= captions_read(load_encoders(texts, 0, models / "encoders"), captions, "sample")
    write_json(reports / "metrics.json", metrics)
    return metrics


def estimate(params: Params, plan: pd.DataFrame, tiles: Callable[[str], np.ndarray], models: Path, device: str):
    """Seconds and MiB that a plan would take on one worker, from timing one step of one microbatch.

    Parameters
    ----------
    tiles : gives the `image`, `mask` or `edge` of the plan's first microbatch.

    Returns
    -------
    `seconds_one_worker` and `mib_at_most`, or None where there is no trained generator yet.
    """
    if not (models / "denoiser" / "conditions.json").is_file():
        return None
    size, first = params.plan.batch_size, plan.head(params.plan.batch_size)
    settings = (params.train_denoiser.attention, device, params.sample.precision)
    generator = load_generator(models, generator_sha256(models), *settings)
    arrays = generator.encoders.arrays(first, tiles)
    index = np.resize(np.arange(len(first)), size)
    given, nothing = batch(arrays, generator.specs, index), null(arrays, generator.specs)
    one_step = params.sample.model_copy(update={"steps": 1, "guidance_interval": (0.0, 1.0)})
    generator.latents(np.arange(size), given, nothing, one_step)
    start = time.perf_counter()
    latents = generator.latents(np.arange(size), given, nothing, one_step)
    stepped = time.perf_counter()
    generator.codec.decode(latents)
    decoded = time.perf_counter()
    per_batch = (stepped - start) * params.sample.steps + (decoded - stepped)
    tile_mib = params.tile.tile_px**2 * 3 / 2**20
    return {"seconds_one_worker": per_batch * -(-len(plan) // size), "mib_at_most": len(plan) * tile_mib}
