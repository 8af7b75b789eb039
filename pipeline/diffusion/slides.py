"""What the `sample_slides` stage does with a study: each slide stated, woven, decoded and written as a pyramid."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from pipeline.config import Params, SampleSlides, WovenSlide
from pipeline.data.commit import commit_part, write_json
from pipeline.data.manifest import read_manifest
from pipeline.data.seeds import item_seed
from pipeline.data.store import TileStore
from pipeline.diffusion.blocks import Layout, Weave, lay_out
from pipeline.diffusion.canvas import Denoiser
from pipeline.diffusion.covers import Cover, make_cover
from pipeline.diffusion.decode import BAND, DecodeJob, decode_band, read_bands
from pipeline.diffusion.solver import Solver, make_solver
from pipeline.diffusion.stated import check_lenders, read_mask, write_surroundings
from pipeline.diffusion.study import generator_lineage, generator_sha256, load_generator, written_guidance
from pipeline.diffusion.surroundings import Surroundings
from pipeline.diffusion.weaving import CanvasJob, run_canvas
from pipeline.errors import HistoloomError, ManifestFaults
from pipeline.models.autoencoder import LatentCodec
from pipeline.progress import progress
from pipeline.slides.open import open_slide
from pipeline.slides.polygons import write_polygons
from pipeline.slides.pyramid import level_sizes, write_pyramid
from pipeline.slides.study import study_splits

SLIDE, CONDITION, POLYGONS, THUMBNAIL, FACTS = (
    "slide.tif", "condition.tif", "polygons.geojson", "thumbnail.jpg", "canvas.json",
)  # fmt: skip


@dataclass(frozen=True)
class LoadCanvas:
    """What a worker needs to weave, found by value in its cache.

    settings : `sample_slides` as JSON.
    """

    models: Path
    generator_sha256: str
    attention: str
    device: str
    settings: str
    window: int
    stated: Path

    def __call__(self) -> tuple[Denoiser, Surroundings]:
        config = SampleSlides.model_validate_json(self.settings)
        generator = load_generator(self.models, self.generator_sha256, self.attention, self.device)
        surroundings = Surroundings(self.stated)
        nothing = replace(surroundings.nothing, map=_no_map(generator.specs, self.window))
        solver = _solver(config, generator.training)
        return Denoiser(
            generator.unet, generator.specs, nothing, config.scale, solver, config.batch_size, self.device
        ), surroundings


@dataclass(frozen=True)
class LoadCodec:
    """The same for what decodes."""

    models: Path
    generator_sha256: str
    attention: str
    device: str

    def __call__(self) -> LatentCodec:
        return load_generator(self.models, self.generator_sha256, self.attention, self.device).codec


def _no_map(specs, window: int) -> torch.Tensor | None:
    channels = sum(s.size for s in specs if s.shape == "map")
    return torch.zeros(1, channels, window, window) if channels else None


def _solver(config: SampleSlides, training: dict) -> Solver:
    facts = {key: training[key] for key in ("prediction", "schedule", "train_timesteps")}
    return make_solver(config.scheduler, steps=config.steps, **facts)


def sample_slides_study(
    params: Params,
    work,
    device: str,
    pool: Callable[[int], AbstractContextManager],
    models: Path = Path("models"),
    tiles: Path = Path("data/tiles"),
    output: Path | str = "data/woven",
    reports: Path = Path("reports/sample_slides"),
) -> dict:
    """Weave every slide that params state and publish them, with the generator's lineage.

    Raises
    ------
    HistoloomError
        for a slide smaller than a window, a mask whose classes the model doesn't know, a full disk; what was
        committed is kept.
    """
    slides = params.sample_slides.slides
    metrics: dict = {"slides": {}}
    lineage = {}
    if slides:
        identity = generator_sha256(models)
        lineage = {identity: generator_lineage(models)}
        for slide in slides:
            metrics["slides"][slide.name] = _weave_slide(slide, params, work, device, pool, models, tiles, identity)
    work.promote_parts([slide.name for slide in slides], output, {"lineage.json": lineage})
    write_json(reports / "metrics.json", metrics)
    return metrics


def _weave_slide(slide: WovenSlide, params: Params, work, device: str, pool, models: Path, tiles: Path, identity: str):
    generator = load_generator(models, identity, params.train_denoiser.attention, device)
    factor, config = params.train_autoencoder.down_factor, params.sample_slides
    window = config.window_latent_px or generator.training["latent_px"]
    cover, layout = _geometry(slide, config, factor, window)
    folder = work.root.resolve() / "canvases" / slide.name

    def state(target: Path) -> dict:
        manifest = read_manifest(params.tile)
        entries = {entry.slide_id: entry for entry in manifest.slides}
        made = (generator.codec, generator.specs, generator.encoders)
        lenders = write_surroundings(target, slide, params, layout.canvas, *made, TileStore(tiles), entries)
        if faults := check_lenders(slide, lenders, study_splits(manifest, params.tile, params.seed)):
            raise ManifestFaults(faults)
        return {"ancestors": lenders}

    stated = commit_part(folder, "stated", state)["info"]
    solver = _solver(config, generator.training)
    begin = solver.begin(slide.image.strength) if slide.image else 0
    seed = item_seed(params.seed, f"slide/{slide.name}")
    weave = Weave(seed, cover, layout, generator.codec.channels, begin, config.steps)
    load = LoadCanvas(
        models.resolve(), identity, params.train_denoiser.attention, device, config.model_dump_json(), window, folder / "stated"
    )  # fmt: skip
    job = CanvasJob(weave, load, folder / "steps", folder / "scratch", config.checkpoint_every)
    shutil.rmtree(job.scratch, ignore_errors=True)
    height, width = -(-slide.height_px // factor), -(-slide.width_px // factor)
    codec = LoadCodec(load.models, identity, load.attention, device)
    numbers = range(-(-height // BAND))
    bands = [DecodeJob(job, number, height, width, codec, factor, folder / "bands") for number in numbers]
    start = time.monotonic()
    with pool(layout.count) as run:
        run_canvas(job, run.graph, f"sample_slides: {slide.name}")
        woven = time.monotonic()
        run(decode_band, bands, f"sample_slides: {slide.name}, decoding")
    facts = _facts(slide, params, weave, identity, stated["ancestors"])

    def write(target: Path) -> dict:
        _write_slide(target, slide, params, bands, facts, folder)
        return {"weave_s": woven - start, "decode_s": time.monotonic() - woven}

    info = commit_part(work.parts, slide.name, write)["info"]
    shutil.rmtree(folder, ignore_errors=True)
    return info | {"blocks": layout.count, "canvas_latent_px": layout.canvas}


def _geometry(slide: WovenSlide, config: SampleSlides, factor: int, window: int) -> tuple[Cover, Layout]:
    """The cover, and the blocks of a canvas that is padded by a window where what is stated doesn't wrap."""
    smallest = min(slide.height_px, slide.width_px)
    if smallest < window * factor:
        raise HistoloomError(
            f"sample_slides.slides, '{slide.name}' is {slide.width_px} x {slide.height_px} px, smaller than a window of "
            f"{window * factor} px. Make it larger, or lower sample_slides.window_latent_px."
        )
    halos = config.halos(window)
    if max(halos) > window // 4:
        raise HistoloomError(
            f"sample_slides.halo_latent_px is {max(halos)}, more than a quarter of the window ({window}): most of what is "
            "predicted would be thrown away."
        )
    pad = window if slide.mask or slide.image or slide.field else 0
    height, width = (-(-side // factor) + pad for side in (slide.height_px, slide.width_px))
    cover = make_cover(config.cover, window, halos)
    if cover.whole:
        return cover, Layout((height,), (width,))
    return cover, lay_out(height, width, cover.cell(), config.block_latent_px, window)


def _facts(slide: WovenSlide, params: Params, weave: Weave, identity: str, ancestors: list[str]) -> dict:
    """What is known of a slide, its steps' offsets among it."""
    config = params.sample_slides
    return {
        "name": slide.name,
        "width_px": slide.width_px,
        "height_px": slide.height_px,
        "mpp": params.tile.mpp,
        "classes": list(params.tile.masks.classes),
        "purpose": slide.purpose,
        "ancestors": ancestors,
        "generator_sha256": identity,
        "seed": weave.seed,
        "recipe": f"{config.cover}-{config.scheduler}-{config.steps}",
        "guidance": written_guidance(config.guidance),
        "label": slide.label,
        "caption": slide.caption,
        "canvas_latent_px": weave.layout.canvas,
        "down_factor": params.train_autoencoder.down_factor,
        "steps": weave.log(),
    }


def _write_slide(
    target: Path, slide: WovenSlide, params: Params, bands: list[DecodeJob], facts: dict, folder: Path
) -> None:
    config, size = params.sample_slides, (slide.height_px, slide.width_px)
    picture, mask = read_bands(bands), read_mask(slide, params, False)

    def clipped(top: int, left: int, height: int, width: int) -> np.ndarray:
        return picture(top, left, min(height, size[0] - top), min(width, size[1] - left))

    def ids(top: int, left: int, height: int, width: int) -> np.ndarray:
        height, width = min(height, size[0] - top), min(width, size[1] - left)
        return mask.ids(top, height)[:, left : left + width, None]

    count = sum(-(-h // config.tile_px) * -(-w // config.tile_px) for h, w in level_sizes(size, config.tile_px))
    options = {"tile_px": config.tile_px, "quality": config.quality}
    scratch = folder / "levels"
    scratch.mkdir(parents=True, exist_ok=True)
    with progress(f"sample_slides: {slide.name}, pyramid", count * (1 + (mask is not None))) as advance:
        options["advance"] = advance
        write_pyramid(
            target / SLIDE, clipped, size, params.tile.mpp, scratch, compression=config.compression, **options
        )
        if mask is not None:
            write_pyramid(target / CONDITION, ids, size, params.tile.mpp, scratch, compression="deflate", **options)
            write_polygons(target / POLYGONS, mask.regions, mask.raster, mask.classes, size)
    with open_slide(target / SLIDE) as made:
        made.handle.get_thumbnail((config.thumbnail_px,) * 2).convert("RGB").save(target / THUMBNAIL, quality=90)
    write_json(target / FACTS, facts)
