"""What a denoiser makes of a real slide, written as a slide that says of itself that no scanner saw it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

import histoloom
from histoloom.data.commit import hash_tree, sha256_file
from histoloom.data.pixel_box import PixelBox, cut
from histoloom.data.slide_entry import PREDICTION
from histoloom.progress import progress
from histoloom.sampling.predicted_slide import (
    Asked,
    PredictedCanvases,
    identity_of,
    lineage_of_prediction,
    weave_prediction,
)
from histoloom.slides.open import open_slide, slide_sha256
from histoloom.slides.output_folder import OutputFolder
from histoloom.slides.polygons import write_traced
from histoloom.slides.pyramid import PyramidPicture, TiffFormat, level_sizes, write_pyramid
from histoloom.slides.slide import Slide
from histoloom.slides.woven import DEVIATION, FACTS, MADE, NOTE, SLIDE, THUMBNAIL

VIEWER = "viewer.html"
_THUMBNAIL_PX = 1024
_CLASS = "Made by a model"
_FILES = (SLIDE, DEVIATION, MADE, THUMBNAIL, VIEWER)


@dataclass(frozen=True)
class RestoredSlide:
    """The size of what was written, px, its scale, and the share of it that the model made."""

    width: int
    height: int
    mpp: float
    share_made: float


@dataclass(frozen=True)
class _Pixels:
    """What is written: the samples' mean, and where nothing was asked for, what the scanner saw.

    keeps : whether what is not made stays as it was scanned. form : how it is written.
    """

    found: PredictedCanvases
    keeps: bool
    form: TiffFormat

    def mean(self, box: PixelBox[int]) -> np.ndarray:
        samples = self._samples(box)
        made = samples[0] if len(samples) == 1 else np.rint(np.mean(samples, 0, dtype=np.float32)).astype(np.uint8)
        if not self.keeps:
            return made
        where = self.found.made(box) > 0
        return made if where.all() else np.where(where, made, self.found.scanned(box))

    def deviation(self, box: PixelBox[int]) -> np.ndarray:
        """Of the samples, over colours, grey levels."""
        spread = np.std(self._samples(box), 0, ddof=1, dtype=np.float32).mean(-1, keepdims=True)
        made = self.found.made(box) if self.keeps else 1
        return np.rint(spread * made).clip(0, 255).astype(np.uint8)

    def _samples(self, box: PixelBox[int]) -> list[np.ndarray]:
        return [read(box) for read in self.found.readers]


def restore_slide(slide: Slide, models: Path, asked: Asked, out: Path, where: str) -> RestoredSlide:
    """Write `slide.tif`, what of it was made (`made.geojson`), and with several samples how far they differ (`deviation.tif`).

    What was done before a break is taken up again, if slide, model and what is asked are the same.

    Raises
    ------
    HistoloomError
        when the folder holds a slide that was not made here, or `weave_prediction` refuses.
    """
    sha256 = slide_sha256(slide.path)
    folder = OutputFolder(out, _FILES, FACTS, PREDICTION)
    parts = folder.begin(slide.path, identity_of(models, asked, sha256, slide))
    found = weave_prediction(slide, models, asked, parts, where)
    made, kept = parts / "made", bool(asked.image.get("keep"))
    form = TiffFormat(compression="deflate" if kept else "jpeg")  # what is kept stays to the bit
    share = _write(made, _Pixels(found, kept or bool(asked.image.get("picture")), form), scratch=parts)
    height, width = found.size
    folder.publish(parts, made, {
        "name": slide.path.stem, "width_px": width, "height_px": height, "mpp": found.mpp, "classes": [], "note": NOTE,
        "asked": {"image": dict(asked.image), "from": dict(asked.own_cohort), "to": dict(asked.cohort), "samples": asked.samples,
                  "seed": asked.seed, "steps": found.steps},
        "made_fraction": share, "source": slide.path.name, "source_sha256": sha256, "slide_sha256": sha256_file(made / SLIDE),
        "model_sha256": hash_tree(models), "lineage": lineage_of_prediction(models), "histoloom": histoloom.__version__,
    })  # fmt: skip
    return RestoredSlide(width, height, found.mpp, share)


def _write(folder: Path, pixels: _Pixels, scratch: Path) -> float:
    """Write all files; the share of pixels that were made."""
    found, several = pixels.found, pixels.found.samples > 1
    folder.mkdir(exist_ok=True)
    levels, form = scratch / "levels", pixels.form
    levels.mkdir(exist_ok=True)
    tiles = sum(-(-h // form.tile_px) * -(-w // form.tile_px) for h, w in level_sizes(found.size, form.tile_px))
    with progress("predict: pyramid", tiles * (1 + several)) as advance:
        write = partial(write_pyramid, scratch=levels, advance=advance)
        write(folder / SLIDE, PyramidPicture(pixels.mean, found.size, found.mpp, NOTE), form)
        if several:
            grey = TiffFormat(compression="deflate")
            write(folder / DEVIATION, PyramidPicture(pixels.deviation, found.size, found.mpp, NOTE), grey)
    counts = [0]

    def made(box: PixelBox[int]) -> np.ndarray:
        ids = found.made(box) if pixels.keeps else np.ones((*_shape(box, found.size), 1), np.uint8)
        counts[0] += int(ids.sum())
        return ids

    write_traced(folder / MADE, made, found.size, (_CLASS,), found.downsample)
    with open_slide(folder / SLIDE) as written:
        picture = written.handle.get_thumbnail((_THUMBNAIL_PX,) * 2).convert("RGB")
    picture.save(folder / THUMBNAIL, quality=90)
    return counts[0] / (found.size[0] * found.size[1])


def _shape(box: PixelBox[int], size: tuple[int, int]) -> tuple[int, int]:
    own = cut(box, size)
    return own.height, own.width
