"""A slide's masks by stain as files: what a woven slide, or QuPath after an edit, takes as its map."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from histoloom.config.tile import Tissue
from histoloom.data.nuclei_layout import outlines
from histoloom.data.pixel_box import PixelBox
from histoloom.errors import HistoloomError
from histoloom.slides.open import open_slide
from histoloom.slides.slide import Slide
from histoloom.slides.stain_mask import REACH_UM, StainMask, fit_stain_mask
from histoloom.slides.tissue import FIT_TILES, detect_tissue, fullest

_BAND_PX = 1024
_SAMPLE_PX = 256


@dataclass(frozen=True)
class Segmented:
    """The size of what was written, px, and how many nuclei there are."""

    width: int
    height: int
    nuclei: int


def segment_slide(
    path: Path,
    classes: tuple[str, ...],
    mpp: float,
    box: PixelBox[int] | None,
    out: Path,
    mpp_level0: float | None = None,
) -> Segmented:
    """Write `mask.png` (class ids), `instances.png` (numbers of nuclei, uint16) and `overlay.jpg` of a slide's region.

    Parameters
    ----------
    mpp : scale of what is written, µm/px.
    box : at level 0; None is all that was scanned (Slide.bounds).
    mpp_level0 : the slide's own scale, where its file doesn't tell it.

    Raises
    ------
    HistoloomError
        when the slide has no tissue, or more nuclei in the region than a 16-bit raster can number.
    """
    with open_slide(path, mpp_level0) as slide:
        box = box or slide.bounds
        if box.left < 0 or box.top < 0 or box.right > slide.width or box.bottom > slide.height:
            raise HistoloomError(f"{path.name} is {slide.width} x {slide.height} px, and the box reaches beyond it.")
        picture, mask, numbers = _segmented(slide, _fit(slide, classes, mpp), box, mpp)
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(out / "mask.png")
    Image.fromarray(numbers.astype(np.uint16)).save(out / "instances.png")
    picture[outlines(numbers) > 0] = (0, 160, 0)
    Image.fromarray(picture).save(out / "overlay.jpg", quality=90)
    height, width = mask.shape
    return Segmented(width, height, int((np.unique(numbers) > 0).sum()))


def _segmented(
    slide: Slide, fitted: StainMask, box: PixelBox[int], mpp: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The picture of a box of level 0, its class ids and the numbers of its nuclei, made in bands."""
    downsample, margin = mpp / slide.mpp, round(REACH_UM / mpp)
    height, width = int(box.height / downsample), int(box.width / downsample)
    mask, numbers = np.zeros((height, width), np.uint8), np.zeros((height, width), np.int32)
    picture, last = np.zeros((height, width, 3), np.uint8), 0
    for top in range(0, height, _BAND_PX):
        rows = min(_BAND_PX, height - top)
        left, above = box.left - margin * downsample, box.top + (top - margin) * downsample
        wider = PixelBox(left, above, (width + 2 * margin) * downsample, (rows + 2 * margin) * downsample)
        band, inner = slide.read(wider, downsample), np.s_[margin : margin + rows, margin : margin + width]
        found, here = fitted.segment(band, mpp).crop(inner), np.s_[top : top + rows]
        mask[here], picture[here] = found.mask, band[inner]
        numbers[here], last = _numbered(found.nuclei, numbers[top - 1] if top else None, last)
        if last >= 2**16:
            raise HistoloomError(f"{slide.path.name} has more nuclei than a 16-bit raster numbers: name a smaller box.")
    return picture, mask, numbers


def _numbered(nuclei: np.ndarray, above: np.ndarray | None, last: int) -> tuple[np.ndarray, int]:
    """A band's nuclei, numbered on from `last`, and the last number; one that the row above ends in keeps that row's number."""
    found = np.unique(nuclei[nuclei > 0])
    renamed = np.zeros(found.max(initial=0) + 1, np.int32)
    renamed[found] = last + 1 + np.arange(len(found))
    if above is not None:
        for number in np.unique(nuclei[0][(nuclei[0] > 0) & (above > 0)]):
            renamed[number] = np.bincount(above[(nuclei[0] == number) & (above > 0)]).argmax()
    return renamed[nuclei], last + len(found)


def _fit(slide: Slide, classes: tuple[str, ...], mpp: float) -> StainMask:
    """Fit to boxes of the slide's tissue, evenly spread."""
    downsample = mpp / slide.mpp
    side = _SAMPLE_PX * downsample
    tissue = detect_tissue(slide, Tissue())
    corners = np.argwhere(np.ones((max(1, int(slide.height / side)), max(1, int(slide.width / side)))))[:, ::-1] * side
    fractions = tissue.fractions(corners.astype(float), side)
    chosen = fullest(fractions, FIT_TILES)
    if not len(chosen):
        raise HistoloomError(f"{slide.path.name} has no tissue to fit to.")
    boxes = [PixelBox(x, y, side, side) for x, y in corners[chosen].tolist()]
    return fit_stain_mask(classes, np.stack([slide.read(box, downsample) for box in boxes]), mpp)
