"""A real slide through a trained denoiser: a canvas for each sample, laid over the slide's scanned part, or over what regions need of it.

The denoiser is given the slide (the condition `picture`), or begins from it: noised, inverted under its own cohort, or kept but for regions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import histoloom
from histoloom.canvas.decode import read_bands
from histoloom.canvas.inputs import array_of
from histoloom.cluster import device, open_pool, use_training_threads
from histoloom.config import Cluster, Params, WovenSlide
from histoloom.config.base import Solved
from histoloom.config.denoiser_record import read_denoiser_record
from histoloom.config.sample_slides import FromImage
from histoloom.config.tile import Split
from histoloom.data.commit import digest, sha256_file
from histoloom.data.manifest import Manifest
from histoloom.data.pixel_box import PixelBox, cut
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.study_folder import Study, place_of
from histoloom.errors import HistoloomError
from histoloom.process.solver import make_solver
from histoloom.sampling.diffusion_model import DiffusionModel, check_distilled, generator_sha256, lineage_of_models
from histoloom.sampling.repaired_regions import boxes_of, regions_in_px, write_regions
from histoloom.sampling.slide import woven
from histoloom.sampling.weaver import Canvas, LoadModel, Weaver
from histoloom.slides.pyramid import ReadBox
from histoloom.slides.regions import Regions
from histoloom.slides.slide import Slide

_GROUP = "predicted"


@dataclass(frozen=True)
class Asked:
    """What is to be made of a slide.

    image : keys of `FromImage` that say how the canvas begins: picture, strength, inverted or keep.
    cohort : what it is to look like; own_cohort : what it looks like. Column to value.
    regions : GeoJSON polygons as QuPath exports them, in level-0 px from the corner of the scanned part: with keep, what is made anew.
    samples : how many, each from its own noise.
    """

    image: Mapping[str, Any]
    cohort: Mapping[str, str] = field(default_factory=dict)
    own_cohort: Mapping[str, str] = field(default_factory=dict)
    regions: Path | None = None
    samples: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Patch:
    """A part of the slide that was woven: where it lies, px, and a canvas of it for each sample."""

    box: PixelBox[int]
    canvases: tuple[Canvas, ...]


@dataclass(frozen=True)
class PredictedCanvases:
    """The finished canvases of a slide, a picture or mask of each.

    patches : one of the whole slide, or what regions need; they don't overlap. size : (height, width) px at `mpp`. downsample : level-0 px to
    a px. regions : that alone were to be made, px.
    """

    slide: Slide
    patches: tuple[Patch, ...]
    size: tuple[int, int]
    mpp: float
    downsample: float
    factor: int
    regions: Regions | None = None

    @property
    def samples(self) -> int:
        return len(self.patches[0].canvases)

    @property
    def steps(self) -> int:
        """Of the solver, of each canvas."""
        plan = self.patches[0].canvases[0].job.plan
        return plan.end - plan.begin

    @property
    def readers(self) -> list[ReadBox]:
        """What reads each sample; beside the patches it is black."""
        return [partial(self._read, number) for number in range(self.samples)]

    def _read(self, number: int, box: PixelBox[int]) -> np.ndarray:
        box = cut(box, self.size)
        channels = self.patches[0].canvases[number].bands[0].raster.channels
        out = np.zeros((box.height, box.width, channels), np.uint8)
        for patch in self.patches:
            left, top = max(box.left, patch.box.left), max(box.top, patch.box.top)
            width, height = min(box.right, patch.box.right) - left, min(box.bottom, patch.box.bottom) - top
            if width > 0 and height > 0:
                own = PixelBox(left - patch.box.left, top - patch.box.top, width, height)
                rows, columns = (
                    slice(top - box.top, top - box.top + height),
                    slice(left - box.left, left - box.left + width),
                )
                out[rows, columns] = read_bands(patch.canvases[number].bands)(own)
        return out

    def made(self, box: PixelBox[int]) -> np.ndarray:
        """(h, w, 1) uint8 of a box, cut where the picture ends: 1 where the model made it."""
        box = cut(box, self.size)
        if self.regions is not None:
            return (self.regions.numbers(box, 1.0) > 0)[..., None].astype(np.uint8)
        free, factor = array_of(self.patches[0].canvases[0].inputs.arrays, "free"), self.factor
        rows, columns = (slice(a // factor, -(-b // factor)) for a, b in ((box.top, box.bottom), (box.left, box.right)))
        whole = (np.asarray(free[rows, columns]) > 0).repeat(factor, 0).repeat(factor, 1)
        top, left = box.top - rows.start * factor, box.left - columns.start * factor
        return whole[top : top + box.height, left : left + box.width, None].astype(np.uint8)

    def scanned(self, box: PixelBox[int]) -> np.ndarray:
        """(h, w, 3) uint8 of a box, as the slide has it at this scale."""
        box, corner = cut(box, self.size), self.slide.bounds
        level0 = box.scaled(self.downsample)
        moved = level0._replace(left=level0.left + corner.left, top=level0.top + corner.top)
        return self.slide.read(moved, self.downsample)


def weave_prediction(
    slide: Slide, models: Path, asked: Asked, folder: Path, where: str, array: str = "image"
) -> PredictedCanvases:
    """Weave a canvas for each sample in a folder; what was done before a break is taken up again.

    Parameters
    ----------
    where : the device: cpu or cuda. array : what is decoded, `image` or `mask`.

    Raises
    ------
    HistoloomError
        when the slide is much coarser than what the model learnt, or the model can't do what is asked.
    """
    study = place_of(models)
    params = _params(study.params, asked)
    _check_cohorts(models, asked)
    if asked.regions is not None and params.tile.stain != "none":
        raise HistoloomError(
            f"The model learnt tiles under tile.stain: {params.tile.stain}, so that repaired regions would have other colours than the slide."
        )
    downsample = params.tile.mpp / slide.mpp
    enlarged = params.train_encoders.picture.factor if asked.image.get("picture") else 1
    if not np.isfinite(downsample) or downsample * enlarged < 0.8:
        raise HistoloomError(
            f"{slide.path.name} has {slide.mpp:g} µm/px, and the model learnt tiles of {params.tile.mpp:g}: too coarse. "
            "If the file's scale is wrong, state it with --slide-mpp."
        )
    bounds = slide.bounds
    size = int(bounds.height / downsample), int(bounds.width / downsample)
    if min(size) < 1:
        raise HistoloomError(f"{slide.path.name} is smaller than a pixel of {params.tile.mpp:g} µm.")
    cluster = Cluster.model_validate({"device": where, "workers": 0})
    use_training_threads(cluster)
    weaver = _weaver(study, models, params, slide, asked, folder, device(cluster))
    regions = None if asked.regions is None else regions_in_px(asked.regions, downsample, size)
    model = weaver.load()
    _check_strength(asked, params, model)
    factor = model.raster_of(array).factor
    least = factor * (params.sample_slides.window_latent_px or model.record.training.px)
    boxes = [PixelBox(0, 0, size[1], size[0])] if regions is None else boxes_of(regions, size, least, factor)
    patches = []
    for count, box in enumerate(boxes, 1):
        which = "" if regions is None else f", region {count} of {len(boxes)}"
        found = []
        for number in range(asked.samples):
            name = f"sample-{number}" + ("" if regions is None else f"-at-{box.left}-{box.top}")
            holes = None if regions is None else write_regions(regions, box, folder / name)
            stated = _stated(name, box, least, slide, downsample, asked, holes)
            title = f"predict: {number + 1} of {asked.samples}{which}"
            canvas, _ = woven(
                stated, weaver, lambda tasks: open_pool(cluster, tasks=tasks), folder / name, title, array
            )
            found.append(canvas)
        patches.append(Patch(box, tuple(found)))
    return PredictedCanvases(slide, tuple(patches), size, params.tile.mpp, downsample, factor, regions)


def _check_cohorts(models: Path, asked: Asked) -> None:
    """Refuse cohorts that the model doesn't know, and any of a model that knows none."""
    record = read_denoiser_record(models / "denoiser")
    known = next((s.channels for s in record.conditions if s.name == "cohort"), ()) if record else ()
    for name, value in [*asked.own_cohort.items(), *asked.cohort.items()]:
        if f"{name}={value}" not in known:
            has = f"It knows {', '.join(sorted(known))}." if known else "It knows no cohort (condition cohort)."
            raise HistoloomError(f"The model has not learnt '{name}={value}'. {has}")


def _check_strength(asked: Asked, params: Params, model: DiffusionModel) -> None:
    """Refuse a strength at which nothing of the slide is left."""
    strength, config = asked.image.get("strength", 1.0), params.sample_slides
    if strength < 1 and make_solver(config.scheduler, model.process, config.steps).begin(strength) == 0:
        raise HistoloomError(
            f"A strength of {strength:g} is all {config.steps} steps (sample.steps), which leave nothing of the slide. Lower it."
        )


def identity_of(models: Path, asked: Asked, slide_sha256: str, slide: Slide) -> str:
    """Of all that decides a prediction."""
    study = place_of(models)
    regions = None if asked.regions is None else sha256_file(asked.regions)
    facts = [dict(asked.image), dict(asked.cohort), dict(asked.own_cohort), regions, asked.samples, asked.seed]
    settings = _params(study.params, asked).sample_slides.model_dump(exclude={"slides"})
    return digest(
        [facts, settings, generator_sha256(models), slide_sha256, slide.mpp, slide.bounds, histoloom.__version__]
    )


def lineage_of_prediction(models: Path) -> dict[str, Any]:
    """What the model learnt from."""
    return lineage_of_models(models).record


def _params(params: Params, asked: Asked) -> Params:
    """With how tiles are sampled for how slides are woven, and the one slide as a group of its own."""
    own = {name: getattr(params.sample, name) for name in Solved.model_fields}
    if asked.image.get("inverted"):
        own |= {"scheduler": "ddim", "eta": 0.0}
    settings = params.sample_slides.model_copy(update=own | {"slides": ()})
    tile = params.tile.model_copy(update={"split": Split()})
    return params.model_copy(update={"sample_slides": settings, "tile": tile, "seed": asked.seed})


def _weaver(study: Study, models: Path, params: Params, slide: Slide, asked: Asked, folder: Path, where: str) -> Weaver:
    check_distilled(read_denoiser_record(models / "denoiser"), params.sample_slides, "sample")
    entry = SlideEntry(_GROUP, slide.path, _GROUP, 0, slide.mpp, split="test", extra=dict(asked.own_cohort))
    load = LoadModel(
        models.resolve(), generator_sha256(models), params.train_denoiser.attention, where, params.sample.precision
    )
    return Weaver(study, params, load, Manifest((entry,), None), {}, folder, histoloom.__version__)


def _stated(
    name: str, box: PixelBox[int], least: int, slide: Slide, downsample: float, asked: Asked, holes: Path | None
) -> WovenSlide:
    """A box of the slide, px, as a slide to weave, no smaller than a window."""
    image = FromImage(
        slide_id=_GROUP,
        x_level0_px=slide.bounds.left + box.left * downsample,
        y_level0_px=slide.bounds.top + box.top * downsample,
        width_px=box.width,
        height_px=box.height,
        holes=None if holes is None else str(holes),
        **asked.image,
    )
    if min(box.width, box.height) < least and not (image.picture or image.keep):
        raise HistoloomError(
            f"{slide.path.name} is {box.width} x {box.height} px at the model's scale, smaller than a tile of {least} px."
        )
    return WovenSlide(
        name=name, width_px=max(box.width, least), height_px=max(box.height, least), image=image, cohort=dict(asked.cohort), purpose="evaluate"
    )  # fmt: skip
