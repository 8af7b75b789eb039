"""A slide's masks by stain as files: what a woven slide, or QuPath after an edit, takes as its map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from histoloom.config.tile import Tissue
from histoloom.data.nuclei_layout import outlines
from histoloom.errors import HistoloomError
from histoloom.slides.open import open_slide
from histoloom.slides.stain_mask import REACH_UM, StainMask, fit_stain_mask
from histoloom.slides.tissue import FIT_TILES, detect_tissue, fullest

Box = tuple[int, int, int, int]
_BAND_PX = 1024
_SAMPLE_PX = 256


def segment_slide(
    path: Path, classes: tuple[str, ...], mpp: float, box: Box | None, out: Path, mpp_level0: float | None = None
) -> dict[str, int]:
    """Write `mask.png` (class ids), `instances.png` (numbers of nuclei, uint16) and `overlay.jpg` of a slide's region.

    Parameters
    ----------
    mpp : scale of what is written, µm/px.
    box : x, y, width and height at level 0; None is all that was scanned (Slide.bounds).
    mpp_level0 : the slide's own scale, where its file doesn't tell it.

    Returns
    -------
    The size of what was written, and how many nuclei there are.

    Raises
    ------
    HistoloomError
        when the slide has no tissue, or more nuclei in the region than a 16-bit raster can number.
    """
    with open_slide(path, mpp_level0) as slide:
        x, y, width, height = box or slide.bounds
        downsample = mpp / slide.mpp
        if x < 0 or y < 0 or x + width > slide.width or y + height > slide.height:
            raise HistoloomError(f"{path.name} is {slide.width} x {slide.height} px, and the box reaches beyond it.")
        size = int(width / downsample), int(height / downsample)
        fitted, margin = _fit(slide, classes, mpp), round(REACH_UM / mpp)
        mask, numbers = np.zeros(size[::-1], np.uint8), np.zeros(size[::-1], np.int32)
        picture, last = np.zeros((*size[::-1], 3), np.uint8), 0
        for top in range(0, size[1], _BAND_PX):
            rows = min(_BAND_PX, size[1] - top)
            corner = x - margin * downsample, y + (top - margin) * downsample
            band = slide.read(*corner, size[0] + 2 * margin, rows + 2 * margin, downsample)
            seen = fitted.look(band, mpp).crop(np.s_[margin : margin + rows, margin : margin + size[0]])
            here = np.s_[top : top + rows]
            mask[here], picture[here] = seen.mask, band[margin : margin + rows, margin : margin + size[0]]
            numbers[here], last = _numbered(seen.nuclei, numbers[top - 1] if top else None, last)
            if last >= 2**16:
                raise HistoloomError(f"{path.name} has more nuclei than a 16-bit raster numbers: name a smaller box.")
    found, numbers = np.unique(numbers), numbers.astype(np.uint16)
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(out / "mask.png")
    Image.fromarray(numbers).save(out / "instances.png")
    picture[outlines(numbers.astype(np.int32)) > 0] = (0, 160, 0)
    Image.fromarray(picture).save(out / "overlay.jpg", quality=90)
    return {"width_px": size[0], "height_px": size[1], "nuclei": int((found > 0).sum())}


def _numbered(nuclei: np.ndarray, above: np.ndarray | None, last: int) -> tuple[np.ndarray, int]:
    """A band's nuclei, numbered on from `last`, and the last number; one that the row above ends in keeps that row's number."""
    found = np.unique(nuclei[nuclei > 0])
    renamed = np.zeros(found.max(initial=0) + 1, np.int32)
    renamed[found] = last + 1 + np.arange(len(found))
    if above is not None:
        for number in np.unique(nuclei[0][(nuclei[0] > 0) & (above > 0)]):
            renamed[number] = np.bincount(above[(nuclei[0] == number) & (above > 0)]).argmax()
    return renamed[nuclei], last + len(found)


def _fit(slide, classes: tuple[str, ...], mpp: float) -> StainMask:
    """Fit to boxes of the slide's tissue, evenly spread."""
    downsample = mpp / slide.mpp
    side = _SAMPLE_PX * downsample
    tissue = detect_tissue(slide, Tissue())
    corners = np.argwhere(np.ones((max(1, int(slide.height / side)), max(1, int(slide.width / side)))))[:, ::-1] * side
    fractions = tissue.fractions(corners.astype(float), side)
    chosen = fullest(fractions, FIT_TILES)
    if not len(chosen):
        raise HistoloomError(f"{slide.path.name} has no tissue to fit to.")
    sample = [slide.read(*corners[i], _SAMPLE_PX, _SAMPLE_PX, downsample) for i in chosen]
    return fit_stain_mask(classes, np.stack(sample), mpp)
