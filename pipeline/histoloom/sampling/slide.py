"""One whole slide: stated, woven, decoded and written as a pyramid."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from histoloom.canvas.blocks import BlockGrid, CanvasPlan, block_grid
from histoloom.canvas.decode import BAND, DecodeJob, decode_band, read_bands
from histoloom.canvas.inputs import CanvasInputs
from histoloom.canvas.slide_mask import SlideMask, read_mask
from histoloom.canvas.sources import InputSources, check_source_groups
from histoloom.canvas.step import WindowDenoiser
from histoloom.canvas.weaving import CanvasJob, run_canvas
from histoloom.canvas.window_layouts import Lattice, WindowLayout, make_window_layout
from histoloom.canvas.write_inputs import write_inputs
from histoloom.cluster import Pool, one_thread
from histoloom.conditions.encode import captions_read
from histoloom.config import Params, SampleSlides, WovenSlide
from histoloom.data.commit import commit_part, digest, hash_tree, write_json
from histoloom.data.groups import study_splits
from histoloom.data.manifest import Manifest
from histoloom.data.pixel_box import PixelBox
from histoloom.data.seeds import item_seed
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, refuse_faults
from histoloom.process.solver import Solver, make_solver
from histoloom.progress import progress
from histoloom.sampling.diffusion_model import DiffusionModel, load_diffusion_model, sampling_facts
from histoloom.slides.open import open_slide, slide_sha256
from histoloom.slides.polygons import write_polygons
from histoloom.slides.pyramid import PyramidPicture, ReadBox, TiffFormat, level_sizes, write_pyramid
from histoloom.slides.woven import CONDITION, FACTS, POLYGONS, SLIDE, THUMBNAIL
from histoloom.targets.target import Raster


@dataclass(frozen=True)
class LoadModel:
    """What a worker needs to load the diffusion model, found by value in its cache."""

    models: Path
    generator_sha256: str
    attention: str
    device: str
    precision: str

    def __call__(self) -> DiffusionModel:
        return load_diffusion_model(self.models, self.generator_sha256, self.attention, self.device, self.precision)


@dataclass(frozen=True)
class LoadTarget:
    """What decodes."""

    load: LoadModel

    def __call__(self) -> Raster:
        return self.load().raster


@dataclass(frozen=True)
class LoadCanvas:
    """What weaves, and what is stated about the canvas.

    settings : `sample_slides` as JSON.
    window : side of a window, latent px.
    rounds : how often each step is taken.
    """

    load: LoadModel
    settings: str
    window: int
    inputs: Path
    rounds: int

    def __call__(self) -> tuple[WindowDenoiser, CanvasInputs]:
        config, model = SampleSlides.model_validate_json(self.settings), self.load()
        inputs = CanvasInputs(self.inputs)
        denoiser = WindowDenoiser(
            model.predictor(config.scale_at),
            nulls=replace(inputs.nulls, map=_null_map(model, self.window)),
            solver=_solver(config, model, self.rounds),
            batch_size=config.batch_size,
            device=model.device,
        )
        return denoiser, inputs


def _null_map(model: DiffusionModel, window: int) -> torch.Tensor | None:
    channels = sum(s.size for s in model.specs if s.shape == "map")
    return torch.zeros(1, channels, window, window) if channels else None


def _solver(config: SampleSlides, model: DiffusionModel, rounds: int) -> Solver:
    return make_solver(config.scheduler, model.process, config.steps).ancestral(config.eta).repeated(rounds)


@dataclass(frozen=True)
class Weaver:
    """What all slides of a study have in common.

    tables : what the files hold that `train_encoders` names.
    root : where canvases in the making lie.
    code : the sha256 of the stage's code.
    """

    study: Study
    params: Params
    load: LoadModel
    manifest: Manifest
    tables: dict[str, Any]
    root: Path
    code: str

    def part(self, slide: WovenSlide) -> str:
        """The name of a slide's part holds all that decides it, so that a slide more weaves one slide."""
        params = self.params
        settings = params.sample_slides.model_dump(exclude={"slides"})
        stated = [slide.mask, slide.instances, slide.condition_grid, slide.image and slide.image.holes]
        files: list[Any] = [hash_tree(Path(name)) for name in stated if name and Path(name).exists()]
        if slide.condition_grid or slide.rna:
            files += [hash_tree(self.study.tiles), self.tables]
        entry = next((e for e in self.manifest.slides if slide.image and e.slide_id == slide.image.slide_id), None)
        begun_from = [slide_sha256(entry.path), entry.mpp, entry.patient_id] if entry else []
        model = [self.load.generator_sha256, params.train_denoiser.attention]
        facts = [
            slide.model_dump(),
            settings,
            files,
            begun_from,
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
) -> Callable[[Path], SlideMetrics]:
    """Weave and decode a slide; returns what writes it."""
    params, model, config = weaver.params, weaver.load(), weaver.params.sample_slides
    factor, window = model.raster.factor, config.window_latent_px or model.record.training.px
    layout, blocks = lay_windows(slide, config, factor, window)
    folder = weaver.root / "canvases" / weaver.part(slide)
    with one_thread():
        written = commit_part(folder, "inputs", lambda target: _write_inputs(target, slide, weaver, blocks))["info"]
    solver = _solver(config, model, slide.rounds)
    begin = solver.begin(slide.image.strength) if slide.image else 0
    seed = item_seed(params.seed, f"slide/{slide.name}")
    plan = CanvasPlan(seed, layout, blocks, model.raster.channels, begin, len(solver.steps))
    settings = config.model_dump_json(exclude={"slides"})
    load = LoadCanvas(weaver.load, settings, window, folder / "inputs", slide.rounds)
    job = CanvasJob(plan, load, folder / "steps", folder / "scratch", config.checkpoint_every)
    shutil.rmtree(job.scratch, ignore_errors=True)
    bands = _decode_jobs(job, slide, LoadTarget(weaver.load), factor)
    with pool(blocks.count) as run:
        start = time.monotonic()
        run_canvas(job, run.crew, f"sample_slides: {slide.name}")
        woven = time.monotonic()
        run(decode_band, bands, f"sample_slides: {slide.name}, decoding")
        seconds = {"weave_s": woven - start, "decode_s": time.monotonic() - woven}
    facts = _facts(slide, weaver, plan) | written
    captions = {point["caption"] for row in written["points"] for point in row}
    read = captions_read(model.conditions, captions, f"sample_slides: {slide.name}")

    def write(target: Path) -> SlideMetrics:
        _write_slide(target, slide, params, bands, folder / "levels")
        write_json(target / FACTS, facts)
        return {**seconds, **read, "blocks": blocks.count, "canvas_latent_px": blocks.canvas}

    return write


SlideMetrics = dict[str, float | int | tuple[int, int]]
"""How long a slide took, and what it was made of; as the stage's metrics state it."""


def _decode_jobs(job: CanvasJob, slide: WovenSlide, load: LoadTarget, factor: int) -> list[DecodeJob]:
    height, width = -(-slide.height_px // factor), -(-slide.width_px // factor)
    folder = job.checkpoints.parent / "bands"
    return [DecodeJob(job, n, height, width, load, factor, folder) for n in range(-(-height // BAND))]


def _write_inputs(target: Path, slide: WovenSlide, weaver: Weaver, blocks: BlockGrid) -> dict:
    params, model = weaver.params, weaver.load()
    entries = {entry.slide_id: entry for entry in weaver.manifest.slides}
    sources = InputSources(params, model.raster, model.conditions, weaver.study.real(), entries)
    written = write_inputs(target, slide, blocks.canvas, sources)
    splits = study_splits(weaver.manifest, params.tile, params.seed)
    refuse_faults(check_source_groups(slide, written.source_groups, splits))
    return {"ancestors": written.source_groups, "points": written.points}


def lay_windows(slide: WovenSlide, config: SampleSlides, factor: int, window: int) -> tuple[WindowLayout, BlockGrid]:
    """The window layout, and the blocks of a canvas that is padded by a window where what is stated doesn't wrap.

    Raises
    ------
    HistoloomError
        for a slide that is smaller than a window, or a halo that is more than a quarter of it.
    """
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
    pad = window if slide.mask or slide.image or slide.condition_grid else 0
    height, width = (-(-side // factor) + pad for side in (slide.height_px, slide.width_px))
    layout = make_window_layout(config.window_layout, window, halos)
    if isinstance(layout, Lattice):
        return layout, block_grid(height, width, layout.cell(), config.block_latent_px, window)
    return layout, BlockGrid((height,), (width,))


def _facts(slide: WovenSlide, weaver: Weaver, plan: CanvasPlan) -> dict:
    """What is known of a slide, its steps' offsets among it."""
    params, config = weaver.params, weaver.params.sample_slides
    return {
        "name": slide.name,
        "width_px": slide.width_px,
        "height_px": slide.height_px,
        "mpp": params.tile.mpp,
        "classes": list(params.tile.masks.classes),
        "purpose": slide.purpose,
        "generator_sha256": weaver.load.generator_sha256,
        "seed": plan.seed,
        "sampling": {
            "window_layout": config.window_layout,
            **sampling_facts(config, params.train_denoiser.conditions, weaver.load.device),
        },
        "label": slide.label,
        "canvas_latent_px": plan.blocks.canvas,
        "down_factor": params.factor,
        "steps": plan.log(),
    }


def _write_slide(target: Path, slide: WovenSlide, params: Params, bands: list[DecodeJob], scratch: Path) -> None:
    """Write the pyramid, its mask's pyramid and polygons where it has one, and a thumbnail."""
    config, size = params.sample_slides, (slide.height_px, slide.width_px)
    picture, mask = read_bands(bands), read_mask(slide, params, edges=False)

    def pixels(box: PixelBox[int]) -> np.ndarray:
        return picture(_clip(box, size))

    count = sum(-(-h // config.tile_px) * -(-w // config.tile_px) for h, w in level_sizes(size, config.tile_px))
    scratch.mkdir(parents=True, exist_ok=True)
    with progress(f"sample_slides: {slide.name}, pyramid", count * (1 + (mask is not None))) as advance:
        write, mpp = partial(write_pyramid, scratch=scratch, advance=advance), params.tile.mpp
        form = TiffFormat(config.tile_px, config.compression, config.quality)
        write(target / SLIDE, PyramidPicture(pixels, size, mpp), form)
        if mask is not None:
            write(target / CONDITION, PyramidPicture(_read_ids(mask), size, mpp), TiffFormat(config.tile_px, "deflate"))
            drawn = None if mask.raster is None else mask.ids(0, size[0])
            write_polygons(target / POLYGONS, mask.regions, drawn, mask.classes, size)
    with open_slide(target / SLIDE) as made:
        made.handle.get_thumbnail((config.thumbnail_px,) * 2).convert("RGB").save(target / THUMBNAIL, quality=90)


def _clip(box: PixelBox[int], size: tuple[int, int]) -> PixelBox[int]:
    """A box cut where a picture of (height, width) ends."""
    return box._replace(width=min(box.width, size[1] - box.left), height=min(box.height, size[0] - box.top))


def _read_ids(mask: SlideMask) -> ReadBox:
    """What `write_pyramid` reads of a mask."""

    @lru_cache(maxsize=1)  # a row of tiles is asked for from left to right
    def row_of_ids(top: int, height: int) -> np.ndarray:
        return mask.ids(top, height)

    def ids(box: PixelBox[int]) -> np.ndarray:
        box = _clip(box, mask.size)
        return row_of_ids(box.top, box.height)[:, box.left : box.right, None]

    return ids
