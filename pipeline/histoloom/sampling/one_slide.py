"""One whole slide of a trained model, without a study: the canvas that a study's slides are woven on, in a folder of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from PIL import Image

import histoloom
from histoloom.canvas.decode import read_bands
from histoloom.cluster import device, open_pool, threads_kept, use_training_threads
from histoloom.config import Cluster, Sample, WovenSlide
from histoloom.config.base import Solved
from histoloom.config.tile import Split
from histoloom.data.commit import digest
from histoloom.data.manifest import Manifest
from histoloom.data.pixel_box import PixelBox, cut
from histoloom.data.study_folder import place_of
from histoloom.errors import HistoloomError
from histoloom.progress import progress
from histoloom.sampling.diffusion_model import check_distilled, generator_sha256
from histoloom.sampling.slide import woven
from histoloom.sampling.weaver import Canvas, LoadModel, Weaver
from histoloom.slides.pyramid import PyramidPicture, TiffFormat, level_sizes, write_pyramid
from histoloom.slides.woven import NOTE

_NAME = "slide"


@dataclass(frozen=True)
class SlideToWeave:
    """What is stated of a slide.

    mask : class ids of the model's masks, (height_px, width_px), a raster's file, or GeoJSON polygons in its px.
    outside : what lies where the mask names no class.
    mpp : µm/px; None for the model's own. cohort : column to value.
    """

    width_px: int
    height_px: int
    seed: int = 0
    mask: np.ndarray | Path | None = None
    outside: Literal["glass", "tissue"] = "tissue"
    label: str | None = None
    caption: str | None = None
    cohort: Mapping[str, str] = field(default_factory=dict)
    mpp: float | None = None


@dataclass(frozen=True)
class WovenPicture:
    """A slide that was woven; its pixels lie on disk, in bands.

    width_px, height_px : its size. mpp : µm/px. folder : where it lies; a temporary one is removed with this object.
    """

    width_px: int
    height_px: int
    mpp: float
    folder: Path
    canvas: Canvas = field(repr=False)
    _kept: TemporaryDirectory | None = field(default=None, repr=False)

    def read(self, left: int, top: int, width: int, height: int) -> np.ndarray:
        """(height, width, 3) uint8 of a box, cut where the slide ends."""
        box = cut(PixelBox(left, top, width, height), (self.height_px, self.width_px))
        return read_bands(self.canvas.bands)(box)

    @property
    def pixels(self) -> np.ndarray:
        """(height_px, width_px, 3) uint8, all of it in memory."""
        return self.read(0, 0, self.width_px, self.height_px)

    def save(self, path: str | Path) -> Path:
        """Write it as a tiled, pyramidal BigTIFF, which OpenSlide and QuPath open; JPEG of quality 90. Memory holds a row of tiles.

        Raises
        ------
        HistoloomError
            when there is a file already.
        """
        path, form, size = Path(path), TiffFormat(), (self.height_px, self.width_px)
        if path.exists():
            raise HistoloomError(f"{path} is there already. Name a new file, so that nothing is overwritten.")
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = PyramidPicture(lambda box: self.read(*box), size, self.mpp, NOTE)
        tiles = sum(-(-h // form.tile_px) * -(-w // form.tile_px) for h, w in level_sizes(size, form.tile_px))
        with TemporaryDirectory(dir=self.folder) as scratch, progress("weave: pyramid", tiles) as advance:
            write_pyramid(path, picture, form, scratch=Path(scratch), advance=advance)
        return path


@threads_kept()
def weave_one(
    models: Path,
    stated: SlideToWeave,
    settings: Sample,
    where: str,
    *,
    few_steps: bool = False,
    folder: Path | None = None,
) -> WovenPicture:
    """Weave a slide in this process.

    Parameters
    ----------
    models : a study's or a package's. settings : how it is sampled. where : the device.
    folder : where the work is kept; the same call continues there after a break. None for a temporary one.

    Raises
    ------
    HistoloomError
        for a slide smaller than a tile, or what the model can't be told.
    """
    kept = None if folder is not None else TemporaryDirectory(prefix="histoloom-")
    root = Path(kept.name) if kept is not None else Path(folder or "")
    cluster = Cluster.model_validate({"device": where, "workers": 0})
    use_training_threads(cluster)
    weaver = _weaver(models, stated, settings, device(cluster), root, few_steps=few_steps)
    slide = WovenSlide(
        name=_NAME,
        width_px=stated.width_px,
        height_px=stated.height_px,
        mask=_mask_file(stated, root),
        outside=None if stated.mask is None else stated.outside,
        label=stated.label,
        caption=stated.caption,
        cohort=dict(stated.cohort),
    )
    place = root / weaver.part(slide)
    canvas, _ = woven(slide, weaver, lambda tasks: open_pool(cluster, tasks=tasks), place, "weave")
    return WovenPicture(stated.width_px, stated.height_px, weaver.params.tile.mpp, place, canvas, kept)


def _weaver(models: Path, stated: SlideToWeave, settings: Sample, where: str, root: Path, *, few_steps: bool) -> Weaver:
    study = place_of(models)
    params = study.params
    own = {name: getattr(settings, name) for name in Solved.model_fields} | {"slides": ()}
    scale = {} if stated.mpp is None else {"mpp": stated.mpp}
    params = params.model_copy(
        update={
            "sample_slides": params.sample_slides.model_copy(update=own),
            "tile": params.tile.model_copy(update={"split": Split(), **scale}),
            "seed": stated.seed,
        }
    )
    sha256 = digest([generator_sha256(models), few_steps])
    attention, precision = params.train_denoiser.attention, settings.precision
    load = LoadModel(models.resolve(), sha256, attention, where, precision, few_steps)
    check_distilled(load().record, params.sample_slides, "sample")
    return Weaver(study, params, load, Manifest((), None), {}, root.resolve(), histoloom.__version__)


def _mask_file(stated: SlideToWeave, root: Path) -> str | None:
    """The file of a mask; an array is written to the folder."""
    if stated.mask is None or isinstance(stated.mask, Path):
        return None if stated.mask is None else str(stated.mask)
    ids = np.asarray(stated.mask)
    if ids.shape != (stated.height_px, stated.width_px) or not np.issubdtype(ids.dtype, np.integer):
        raise HistoloomError(
            f"The mask is {ids.dtype} of shape {ids.shape}. Give class ids, {stated.height_px} rows of {stated.width_px}."
        )
    if ids.min() < 0 or ids.max() > 255:
        raise HistoloomError(f"The mask holds the id {ids.max()}: class ids lie between 0 and 255.")
    root.mkdir(parents=True, exist_ok=True)
    ids = np.ascontiguousarray(ids, np.uint8)
    name = root / f"mask-{hashlib.sha256(ids.tobytes()).hexdigest()[:16]}.png"
    Image.fromarray(ids).save(name)
    return str(name)
