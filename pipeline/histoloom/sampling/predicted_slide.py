"""A real slide through a trained denoiser: a canvas for each sample, laid over the slide's scanned part, or over what regions need of it.

The denoiser is given the slide (the condition `picture`), or begins from it: noised, inverted under its own cohort, or kept but for regions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

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
from histoloom.sampling.repaired_regions import Group, grouped, regions_in_px, write_regions
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
    """A part of the slide that was woven.

    box : where it lies, px. canvases : one for each sample. regions : that alone were to be made, px from its corner; None for all of it.
    """

    box: PixelBox[int]
    canvases: tuple[Canvas, ...]
    regions: Regions | None = None


class _Seen(NamedTuple):
    """What a box sees of a patch: `own` lies in the patch, rows and columns in the box."""

    patch: Patch
    own: PixelBox[int]
    rows: slice
    columns: slice


@dataclass(frozen=True)
class PredictedCanvases:
    """The finished canvases of a slide, a picture or mask of each.

    patches : one of the whole slide, or what regions need; those may overlap, and what they make does not. size : (height, width) px at
    `mpp`. downsample : level-0 px to a px.
    """

    slide: Slide
    patches: tuple[Patch, ...]
    size: tuple[int, int]
    mpp: float
    downsample: float
    factor: int

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
        """What reads each sample; beside what was made it may be black."""
        return [partial(self._read, number) for number in range(self.samples)]

    def _read(self, number: int, box: PixelBox[int]) -> np.ndarray:
        box = cut(box, self.size)
        channels = self.patches[0].canvases[number].bands[0].raster.channels
        out = np.zeros((box.height, box.width, channels), np.uint8)
        for seen in self._seen(box):
            pixels, here = read_bands(seen.patch.canvases[number].bands)(seen.own), out[seen.rows, seen.columns]
            np.copyto(here, pixels, where=self._asked(seen)[..., None])
        return out

    def made(self, box: PixelBox[int]) -> np.ndarray:
        """(h, w, 1) uint8 of a box, cut where the picture ends: 1 where the model made it."""
        box = cut(box, self.size)
        out = np.zeros((box.height, box.width, 1), np.uint8)
        for seen in self._seen(box):
            of_regions = seen.patch.regions is not None
            out[seen.rows, seen.columns, 0] |= self._asked(seen) if of_regions else self._free(seen)
        return out

    def _seen(self, box: PixelBox[int]) -> Iterator[_Seen]:
        low, high = np.maximum(self._corners[:, :2], box[:2]), np.minimum(self._corners[:, 2:], (box.right, box.bottom))
        for place in np.flatnonzero((low < high).all(1)):
            patch, (left, top), (right, bottom) = self.patches[place], low[place].tolist(), high[place].tolist()
            own = PixelBox(left - patch.box.left, top - patch.box.top, right - left, bottom - top)
            yield _Seen(patch, own, slice(top - box.top, bottom - box.top), slice(left - box.left, right - box.left))

    @cached_property
    def _corners(self) -> np.ndarray:
        """(patches, 4): left, top, right and bottom."""
        return np.array([[box.left, box.top, box.right, box.bottom] for box in (patch.box for patch in self.patches)])

    @staticmethod
    def _asked(seen: _Seen) -> np.ndarray:
        """(h, w) bool, what was asked of a patch: its regions, or all of it."""
        if seen.patch.regions is None:
            return np.ones((seen.own.height, seen.own.width), bool)
        return seen.patch.regions.numbers(seen.own, 1.0) > 0

    def _free(self, seen: _Seen) -> np.ndarray:
        """(h, w) bool, where the canvas of a whole slide was free."""
        free, factor, own = array_of(seen.patch.canvases[0].inputs.arrays, "free"), self.factor, seen.own
        rows, columns = (slice(a // factor, -(-b // factor)) for a, b in ((own.top, own.bottom), (own.left, own.right)))
        whole = (np.asarray(free[rows, columns]) > 0).repeat(factor, 0).repeat(factor, 1)
        top, left = own.top - rows.start * factor, own.left - columns.start * factor
        return whole[top : top + own.height, left : left + own.width]

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
    whole = [Group(PixelBox(0, 0, size[1], size[0]), None)]
    groups, patches = whole if regions is None else grouped(regions, size, least, factor), []
    for count, group in enumerate(groups, 1):
        found, one = [], group.regions is not None
        for number in range(asked.samples):
            place = folder / (f"sample-{number}" + (f"-region-{count}" if one else ""))
            stated = _stated(place.name, group, least, slide, downsample, asked, place)
            title = f"predict: {number + 1} of {asked.samples}" + (f", region {count} of {len(groups)}" if one else "")
            canvas, _ = woven(stated, weaver, lambda tasks: open_pool(cluster, tasks=tasks), place, title, array)
            found.append(canvas)
        patches.append(Patch(group.box, tuple(found), group.regions))
    return PredictedCanvases(slide, tuple(patches), size, params.tile.mpp, downsample, factor)


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
    name: str, group: Group, least: int, slide: Slide, downsample: float, asked: Asked, folder: Path
) -> WovenSlide:
    """A part of the slide as a slide to weave, no smaller than a window; its regions are written in a folder."""
    box, holes = group.box, None if group.regions is None else write_regions(group.regions, folder)
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
