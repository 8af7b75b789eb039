"""One whole slide: stated, woven, decoded and written as a pyramid."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from histoloom.backbones.precision import native
from histoloom.canvas.blocks import Layout, Weave, lay_out
from histoloom.canvas.decode import BAND, DecodeJob, decode_band, read_bands
from histoloom.canvas.inputs import Surroundings
from histoloom.canvas.step import Denoiser
from histoloom.canvas.weaving import CanvasJob, run_canvas
from histoloom.canvas.window_layouts import Cover, make_cover
from histoloom.canvas.write_inputs import check_lenders, read_mask, write_surroundings
from histoloom.cluster import Pool, one_thread
from histoloom.conditions.encode import captions_read
from histoloom.config import Params, SampleSlides, WovenSlide
from histoloom.data.commit import commit_part, digest, hash_tree, write_json
from histoloom.data.groups import study_splits
from histoloom.data.manifest import Manifest
from histoloom.data.pixel_box import PixelBox
from histoloom.data.seeds import item_seed
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, ManifestFaults
from histoloom.process.solver import Solver, make_solver
from histoloom.progress import progress
from histoloom.sampling.generator import Generator, load_generator, written_guidance
from histoloom.slides.open import open_slide, slide_sha256
from histoloom.slides.polygons import write_polygons
from histoloom.slides.pyramid import PyramidPicture, TiffFormat, level_sizes, write_pyramid
from histoloom.slides.woven import CONDITION, FACTS, POLYGONS, SLIDE, THUMBNAIL
from histoloom.targets.autoencoder import LatentCodec


@dataclass(frozen=True)
class LoadCanvas:
    """What a worker needs to weave, found by value in its cache.

    settings : `sample_slides` as JSON.
    rounds : how often each step is taken.
    """

    models: Path
    generator_sha256: str
    attention: str
    device: str
    settings: str
    window: int
    stated: Path
    rounds: int

    def __call__(self) -> tuple[Denoiser, Surroundings]:
        config = SampleSlides.model_validate_json(self.settings)
        generator = load_generator(self.models, self.generator_sha256, self.attention, self.device, config.precision)
        surroundings = Surroundings(self.stated)
        nothing = replace(surroundings.nothing, map=_no_map(generator.specs, self.window))
        solver = _solver(config, generator.training).repeated(self.rounds)
        return Denoiser(
            generator.unet, generator.specs, nothing, config.scale_at, solver, config.batch_size, self.device
        ), surroundings


@dataclass(frozen=True)
class LoadCodec:
    """The same for what decodes."""

    models: Path
    generator_sha256: str
    attention: str
    device: str
    precision: str

    def __call__(self) -> LatentCodec:
        return load_generator(self.models, self.generator_sha256, self.attention, self.device, self.precision).codec


def _no_map(specs, window: int) -> torch.Tensor | None:
    channels = sum(s.size for s in specs if s.shape == "map")
    return torch.zeros(1, channels, window, window) if channels else None


def _solver(config: SampleSlides, training: dict) -> Solver:
    facts = {key: training[key] for key in ("prediction", "schedule", "train_timesteps")}
    return make_solver(config.scheduler, steps=config.steps, **facts)


@dataclass(frozen=True)
class Weaver:
    """What all slides of a study share.

    tables : what the files hold that `train_encoders` names.
    """

    study: Study
    params: Params
    models: Path
    generator_sha256: str
    device: str
    manifest: Manifest
    tables: dict[str, Any]
    root: Path
    code: str

    @property
    def generator(self) -> Generator:
        settings = (self.params.train_denoiser.attention, self.device, self.params.sample_slides.precision)
        return load_generator(self.models, self.generator_sha256, *settings)

    def part(self, slide: WovenSlide) -> str:
        """The name of a slide's part holds all that decides it, so that a slide more weaves one slide."""
        params = self.params
        settings = params.sample_slides.model_dump(exclude={"slides"})
        stated = [slide.mask, slide.instances, slide.field, slide.image and slide.image.holes]
        files = [hash_tree(Path(name)) for name in stated if name and Path(name).exists()]
        if slide.field or slide.rna:
            files += [hash_tree(self.study.tiles), self.tables]
        entry = next((e for e in self.manifest.slides if slide.image and e.slide_id == slide.image.slide_id), None)
        lender = [slide_sha256(entry.path), entry.mpp, entry.patient_id] if entry else []
        model = [self.generator_sha256, params.train_denoiser.attention]
        facts = [
            slide.model_dump(),
            settings,
            files,
            lender,
            model,
            params.tile.mpp,
            params.tile.masks.classes,
            params.tile.split.model_dump(),
            params.seed,
            self.code,
        ]
        return f"{slide.name}@{digest(facts)[:16]}"


def weave_slide(
    slide: WovenSlide, weaver: Weaver, pool: Callable[..., AbstractContextManager[Pool]]
) -> Callable[[Path], dict]:
    """Weave and decode a slide; returns what writes it."""
    params, generator, config = weaver.params, weaver.generator, weaver.params.sample_slides
    factor, attention = params.train_autoencoder.down_factor, params.train_denoiser.attention
    window = config.window_latent_px or generator.training["latent_px"]
    cover, layout = _geometry(slide, config, factor, window)
    folder = weaver.root / "canvases" / weaver.part(slide)
    with one_thread():
        stated = commit_part(folder, "stated", lambda target: _state(target, slide, weaver, layout))["info"]
    solver = _solver(config, generator.training).repeated(slide.rounds)
    begin = solver.begin(slide.image.strength) if slide.image else 0
    seed = item_seed(params.seed, f"slide/{slide.name}")
    weave = Weave(seed, cover, layout, generator.codec.channels, begin, len(solver.steps))
    identity = (weaver.models, weaver.generator_sha256, attention, weaver.device)
    load = LoadCanvas(*identity, config.model_dump_json(exclude={"slides"}), window, folder / "stated", slide.rounds)
    job = CanvasJob(weave, load, folder / "steps", folder / "scratch", config.checkpoint_every)
    shutil.rmtree(job.scratch, ignore_errors=True)
    height, width = -(-slide.height_px // factor), -(-slide.width_px // factor)
    numbers, codec = range(-(-height // BAND)), LoadCodec(*identity, config.precision)
    bands = [DecodeJob(job, n, height, width, codec, factor, folder / "bands") for n in numbers]
    with pool(layout.count, woven=True) as run:
        start = time.monotonic()
        run_canvas(job, run.graph, f"sample_slides: {slide.name}")
        woven = time.monotonic()
        run(decode_band, bands, f"sample_slides: {slide.name}, decoding")
        seconds = {"weave_s": woven - start, "decode_s": time.monotonic() - woven}
    facts = _facts(slide, weaver, weave) | stated
    captions = {point["caption"] for row in stated["points"] for point in row}
    read = captions_read(generator.encoders, captions, f"sample_slides: {slide.name}")

    def write(target: Path) -> dict:
        _write_slide(target, slide, params, bands, facts, folder)
        return seconds | read | {"blocks": layout.count, "canvas_latent_px": layout.canvas}

    return write


def _state(target: Path, slide: WovenSlide, weaver: Weaver, layout: Layout) -> dict:
    params, generator = weaver.params, weaver.generator
    entries = {entry.slide_id: entry for entry in weaver.manifest.slides}
    made = (generator.codec, generator.specs, generator.encoders)
    lenders, points = write_surroundings(target, slide, params, layout.canvas, *made, weaver.study.real(), entries)
    if faults := check_lenders(slide, lenders, study_splits(weaver.manifest, params.tile, params.seed)):
        raise ManifestFaults(faults)
    return {"ancestors": lenders, "points": points}


def _geometry(slide: WovenSlide, config: SampleSlides, factor: int, window: int) -> tuple[Cover, Layout]:
    """The cover, and the blocks of a canvas that is padded by a window where what is stated doesn't wrap."""
    smallest = min(slide.height_px, slide.width_px)
    if smallest < window * factor:
        raise HistoloomError(
            f"sample_slides.slides, '{slide.name}' is {slide.width_px} x {slide.height_px} px, smaller than a window of "
            f"{window * factor} px. Make it larger, or lower sample_slides.window_latent_px."
        )
    halos = tuple(halo for halo in config.halos(window) for _ in range(slide.rounds))
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


def _facts(slide: WovenSlide, weaver: Weaver, weave: Weave) -> dict:
    """What is known of a slide, its steps' offsets among it."""
    params, config = weaver.params, weaver.params.sample_slides
    return {
        "name": slide.name,
        "width_px": slide.width_px,
        "height_px": slide.height_px,
        "mpp": params.tile.mpp,
        "classes": list(params.tile.masks.classes),
        "purpose": slide.purpose,
        "generator_sha256": weaver.generator_sha256,
        "seed": weave.seed,
        "recipe": f"{config.cover}-{config.scheduler}-{config.steps}-{native(config.precision, weaver.device)}",
        "guidance": written_guidance(config, params.train_denoiser.conditions),
        "label": slide.label,
        "canvas_latent_px": weave.layout.canvas,
        "down_factor": params.train_autoencoder.down_factor,
        "steps": weave.log(),
    }


def _write_slide(
    target: Path, slide: WovenSlide, params: Params, bands: list[DecodeJob], facts: dict, folder: Path
) -> None:
    config, size = params.sample_slides, (slide.height_px, slide.width_px)
    picture, mask = read_bands(bands), read_mask(slide, params, False)

    def clip(box: PixelBox[int]) -> PixelBox[int]:
        return box._replace(width=min(box.width, size[1] - box.left), height=min(box.height, size[0] - box.top))

    @lru_cache(maxsize=1)  # a row of tiles is asked for from left to right
    def row_of_ids(top: int, height: int) -> np.ndarray:
        return mask.ids(top, height)

    def ids(box: PixelBox[int]) -> np.ndarray:
        box = clip(box)
        return row_of_ids(box.top, box.height)[:, box.left : box.right, None]

    count = sum(-(-h // config.tile_px) * -(-w // config.tile_px) for h, w in level_sizes(size, config.tile_px))
    form = TiffFormat(config.tile_px, config.compression, config.quality)
    scratch = folder / "levels"
    scratch.mkdir(parents=True, exist_ok=True)
    with progress(f"sample_slides: {slide.name}, pyramid", count * (1 + (mask is not None))) as advance:
        whole = PyramidPicture(lambda box: picture(clip(box)), size, params.tile.mpp)
        write_pyramid(target / SLIDE, whole, form, scratch=scratch, advance=advance)
        if mask is not None:
            map_of_ids, lossless = PyramidPicture(ids, size, params.tile.mpp), replace(form, compression="deflate")
            write_pyramid(target / CONDITION, map_of_ids, lossless, scratch=scratch, advance=advance)
            drawn = mask.raster and mask.ids(0, size[0])
            write_polygons(target / POLYGONS, mask.regions, drawn, mask.classes, size)
    with open_slide(target / SLIDE) as made:
        made.handle.get_thumbnail((config.thumbnail_px,) * 2).convert("RGB").save(target / THUMBNAIL, quality=90)
    write_json(target / FACTS, facts)
