"""What weaves the slides of a study: a model, what is stated of each canvas, and where it is made."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from histoloom.canvas.blocks import BlockGrid, CanvasPlan, block_grid
from histoloom.canvas.decode import BAND, DecodeJob, decode_band
from histoloom.canvas.inputs import CanvasInputs
from histoloom.canvas.sources import InputSources, check_source_groups
from histoloom.canvas.step import WindowDenoiser
from histoloom.canvas.weaving import CanvasJob, Latents, run_canvas
from histoloom.canvas.window_layouts import Lattice, WindowLayout, make_window_layout
from histoloom.canvas.write_inputs import write_inputs, write_start
from histoloom.cluster import Pool, one_thread
from histoloom.config import Params, SampleSlides, WovenSlide
from histoloom.config.file_keys import GENERATED
from histoloom.data.commit import commit_part, digest, hash_tree
from histoloom.data.groups import study_splits
from histoloom.data.manifest import Manifest
from histoloom.data.seeds import item_seed
from histoloom.data.study_folder import Study
from histoloom.errors import HistoloomError, refuse_faults
from histoloom.process.solver import Solver, make_solver
from histoloom.sampling.diffusion_model import DiffusionModel, load_diffusion_model
from histoloom.slides.open import slide_sha256
from histoloom.targets.target import Raster

Pools = Callable[..., AbstractContextManager[Pool]]


@dataclass(frozen=True)
class LoadModel:
    """What a worker needs to load the diffusion model, found by value in its cache. few_steps : with a package's updates for few steps."""

    models: Path
    generator_sha256: str
    attention: str
    device: str
    precision: str
    few_steps: bool = False

    def __call__(self) -> DiffusionModel:
        return load_diffusion_model(
            self.models, self.generator_sha256, self.attention, self.device, self.precision, few_steps=self.few_steps
        )


@dataclass(frozen=True)
class LoadTarget:
    """What decodes."""

    load: LoadModel
    array: str

    def __call__(self) -> Raster:
        return self.load().raster_of(self.array)


@dataclass(frozen=True)
class LoadCanvas:
    """What weaves, and what is stated about the canvas.

    settings : `sample_slides` as JSON.
    window : side of a window, latent px.
    rounds : how often each step is taken. backwards : from data to noise.
    """

    load: LoadModel
    settings: str
    window: int
    inputs: Path
    rounds: int
    backwards: bool

    def __call__(self) -> tuple[WindowDenoiser, CanvasInputs]:
        config, model = SampleSlides.model_validate_json(self.settings), self.load()
        inputs = CanvasInputs(self.inputs)
        denoiser = WindowDenoiser(
            model.predictor(config.scale_at),
            nulls=replace(inputs.nulls, map=_null_map(model, self.window)),
            solver=_solver(config, model, self.rounds, backwards=self.backwards),
            batch_size=config.batch_size,
            device=model.device,
        )
        return denoiser, inputs


def _null_map(model: DiffusionModel, window: int) -> torch.Tensor | None:
    channels = sum(s.size for s in model.specs if s.shape == "map")
    return torch.zeros(1, channels, window, window) if channels else None


def _solver(config: SampleSlides, model: DiffusionModel, rounds: int, *, backwards: bool) -> Solver:
    solver = make_solver(config.scheduler, model.process, config.steps).ancestral(config.eta).repeated(rounds)
    return solver.backwards(model.process) if backwards else solver


@dataclass(frozen=True)
class Weaver:
    """What all slides of a study have in common.

    tables : what the files hold that `train_encoders` names.
    root : where canvases in the making lie.
    code : the sha256 of the stage's code.
    masks : what weaves the masks of slides whose mask is generated; None where no model before the last makes masks.
    """

    study: Study
    params: Params
    load: LoadModel
    manifest: Manifest
    tables: dict[str, Any]
    root: Path
    code: str
    masks: Weaver | None = None

    def identity(self, slide: WovenSlide) -> str:
        """The sha256 of what makes a slide: of its model, or of that and the model of its mask."""
        own = self.load.generator_sha256
        return own if slide.mask != GENERATED or self.masks is None else digest([self.masks.load.generator_sha256, own])

    def own_cohort(self, slide_id: str) -> dict[str, str]:
        """What slides.csv states of a slide's cohort."""
        entry = next((e for e in self.manifest.slides if e.slide_id == slide_id), None)
        columns = self.params.train_encoders.cohort.columns
        return {c: entry.extra[c] for c in columns if entry.extra.get(c)} if entry else {}

    def part(self, slide: WovenSlide) -> str:
        """The name of a slide's part holds all that decides it, so that a slide more weaves one slide."""
        params = self.params
        settings = params.sample_slides.model_dump(exclude={"slides", "other_formats"})
        stated = [slide.mask, slide.instances, slide.condition_grid, slide.image and slide.image.holes]
        files: list[Any] = [hash_tree(Path(name)) for name in stated if name and Path(name).exists()]
        if slide.condition_grid or slide.rna:
            files += [hash_tree(self.study.tiles), self.tables]
        entry = next((e for e in self.manifest.slides if slide.image and e.slide_id == slide.image.slide_id), None)
        begun_from: list[Any] = [slide_sha256(entry.path), entry.mpp, entry.patient_id] if entry else []
        if slide.image and slide.image.inverted:
            begun_from.append(self.own_cohort(slide.image.slide_id))
        model = [self.load.generator_sha256, params.train_denoiser.attention]
        if slide.mask == GENERATED and self.masks is not None:
            model.append(self.masks.part(slide.model_copy(update={"mask": None})))
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


@dataclass(frozen=True)
class Canvas:
    """A slide's canvas, ready to be woven and decoded.

    written : what `write_inputs` recorded of its inputs.
    """

    job: CanvasJob
    bands: list[DecodeJob]
    written: dict[str, Any]

    @property
    def inputs(self) -> CanvasInputs:
        """What is stated about it."""
        return CanvasInputs(self.job.checkpoints.parent / "inputs")

    def weave(self, pool: Pools, title: str, *, decode: bool = True) -> dict[str, float]:
        """Weave and decode, what is committed kept; seconds of each."""
        shutil.rmtree(self.job.scratch, ignore_errors=True)
        with pool(self.job.plan.blocks.count) as run:
            start = time.monotonic()
            run_canvas(self.job, run.crew, title)
            woven = time.monotonic()
            if decode:
                run(decode_band, self.bands, f"{title}, decoding")
            return {"weave_s": woven - start, "decode_s": time.monotonic() - woven}


def lay_canvas(
    slide: WovenSlide,
    weaver: Weaver,
    folder: Path,
    array: str = "image",
    *,
    backwards: bool = False,
    start: Canvas | None = None,
) -> Canvas:
    """State a slide's canvas in a folder.

    Parameters
    ----------
    array : what it is decoded to, `image` or `mask`.
    backwards : whether it goes from the data of the slide's image to its noise.
    start : a finished canvas of the same size that this one begins from.
    """
    params, model, config = weaver.params, weaver.load(), weaver.params.sample_slides
    target = model.raster_of(array)
    factor, window = target.factor, config.window_latent_px or model.record.training.px
    layout, blocks = lay_windows(slide, config, factor, window)

    def write(inputs: Path) -> dict:
        facts = _write_inputs(inputs, slide, weaver, target, blocks)
        if backwards or start is not None:
            write_start(inputs, blocks.canvas, None if start is None else Latents(start.job).read)
        return facts

    with one_thread():
        written = commit_part(folder, "inputs", write)["info"]
    solver = _solver(config, model, slide.rounds, backwards=backwards)
    begin = solver.begin(slide.image.strength) if slide.image else 0
    what = f"/{array}" if array != "image" else "/inverted" if backwards else ""
    seed = item_seed(params.seed, f"slide/{slide.name}{what}")
    plan = CanvasPlan(seed, layout, blocks, target.channels, begin, len(solver.steps))
    settings = config.model_dump_json(exclude={"slides"})
    load = LoadCanvas(weaver.load, settings, window, folder / "inputs", slide.rounds, backwards)
    job = CanvasJob(plan, load, folder / "steps", folder / "scratch", config.checkpoint_every)
    height, width = -(-slide.height_px // factor), -(-slide.width_px // factor)
    decode = LoadTarget(weaver.load, array)
    bands = [
        DecodeJob(job, number, height, width, decode, factor, folder / "bands", array)
        for number in range(-(-height // BAND))
    ]
    return Canvas(job, bands, written)


def _write_inputs(folder: Path, slide: WovenSlide, weaver: Weaver, target: Raster, blocks: BlockGrid) -> dict:
    params, model = weaver.params, weaver.load()
    entries = {entry.slide_id: entry for entry in weaver.manifest.slides}
    tiles = weaver.study.real() if weaver.study.tiles.is_dir() else None
    sources = InputSources(params, target, model.conditions, tiles, entries)
    written = write_inputs(folder, slide, blocks.canvas, sources)
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
