"""A learner of masks over a whole slide: windows that overlap, whose probabilities are joined, band by band.

Each pixel is seen by four windows, and what a window says counts less towards its border. So there is context beyond each window, and no
seam between two. Windows without tissue are background. Memory holds a band as high as a window.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import histoloom
from histoloom.config.tile import Tissue
from histoloom.data.commit import digest, hash_tree, write_json
from histoloom.data.pixel_box import PixelBox
from histoloom.errors import HistoloomError
from histoloom.learners.kept import Kept
from histoloom.learners.slide_files import Masks, PredictedSlide, masks_folder, write_masks
from histoloom.progress import progress
from histoloom.slides import stain
from histoloom.slides.open import slide_sha256
from histoloom.slides.slide import Slide
from histoloom.slides.slide_stain import fit_slide
from histoloom.slides.tissue import TissueMap, detect_tissue

_AT_ONCE = 32
_STATE = "state.json"


@dataclass(frozen=True)
class _Windows:
    """Windows of a slide's scanned part, half a window apart, beginning half a window before it.

    downsample : level-0 pixels to a pixel of the result. size : (height, width) of the result.
    normaliser : of the stain, as the tiles were normalised that the learner learnt.
    """

    slide: Slide
    tissue: TissueMap
    downsample: float
    px: int
    size: tuple[int, int]
    normaliser: stain.Normaliser | stain.RememberedColours

    def read(self, box: PixelBox[float]) -> np.ndarray:
        """What the learner is shown of a box at level 0, (px, px, 3) uint8."""
        return self.normaliser.apply(self.slide.read(box, self.downsample))

    @property
    def step(self) -> int:
        return self.px // 2

    @property
    def rows(self) -> int:
        return -(-self.size[0] // self.step) + 1

    @property
    def columns(self) -> int:
        return -(-self.size[1] // self.step) + 1

    def boxes(self, row: int) -> list[PixelBox[float]]:
        """At level 0."""
        corner, side = self.slide.bounds, self.px * self.downsample
        top = corner.top + (row - 1) * self.step * self.downsample
        return [
            PixelBox(corner.left + (column - 1) * self.step * self.downsample, top, side, side)
            for column in range(self.columns)
        ]


def predict_slide(slide: Slide, kept: Kept, model: Path, out: Path) -> PredictedSlide:
    """Write `mask.tif` (class ids) and `certainty.tif` (255 is sure, 0 where there is no tissue and nobody looked) as pyramids, `mask.geojson` for QuPath, and `prediction.json`.

    What was done before a break is taken up again, if slide and model are the same.

    Parameters
    ----------
    model : the folder that the learner came from.

    Raises
    ------
    HistoloomError
        when the slide is coarser than what the learner learnt, or smaller than a pixel of it; when the folder can't be written to, or holds
        another's masks.
    """
    facts = kept.facts
    downsample = facts.mpp / slide.mpp if slide.mpp > 0 else 0.0
    if not np.isfinite(downsample) or downsample < 0.8:
        raise HistoloomError(
            f"{slide.path.name} has {slide.mpp:g} µm/px, and the learner learnt tiles of {facts.mpp:g}: its scale is wrong, or too coarse."
        )
    bounds = slide.bounds
    size = int(bounds.height / downsample), int(bounds.width / downsample)
    if min(size) < 1:
        raise HistoloomError(f"{slide.path.name} is smaller than a pixel of {facts.mpp:g} µm.")
    tissue = detect_tissue(slide, Tissue(**facts.tissue))
    windows = _Windows(
        slide, tissue, downsample, facts.px, size, fit_slide(slide, tissue, facts.stain, facts.px, downsample)
    )
    key = digest([slide_sha256(slide.path), slide.mpp, bounds, size, hash_tree(model), histoloom.__version__])
    parts = masks_folder(out).begin(slide.path, key)
    masks, begun = Masks.at(parts, size, downsample), _begun(parts)
    if not begun:
        masks.create()
    with progress("predict", windows.rows - 1) as advance:
        advance(max(0, begun - 1))
        for row, ids, certainty in _bands(windows, kept, begun):
            top = (row - 1) * windows.step
            masks.ids.write(ids[..., None], left=0, top=top)
            masks.sure.write(certainty[..., None], left=0, top=top)
            write_json(parts / _STATE, {"rows": row + 1})
            advance(1)
    return write_masks(out, masks, slide, facts, model, tissue)


def _begun(parts: Path) -> int:
    """How many rows of windows were done before a break."""
    try:
        rows = json.loads((parts / _STATE).read_text(encoding="utf-8"))["rows"]
    except (OSError, ValueError):
        return 0
    return rows if all((parts / name).is_file() for name in ("mask", "sure")) else 0


def _bands(windows: _Windows, kept: Kept, begun: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each row of windows from `begun` on, the rows of the result that it completes: their number, class ids and certainty."""
    px, step, (height, width) = windows.px, windows.step, windows.size
    weights = _weights(px)
    shape = px, (windows.columns + 1) * step
    total, looked = np.zeros((len(kept.facts.classes) + 1, *shape), np.float32), np.zeros(shape, bool)
    for row in range(max(0, begun - 1), windows.rows):
        for column, chances in _row(windows, kept, row):
            here = np.s_[column * step : column * step + px]
            total[:, :, here] += weights * chances
            looked[:, here] |= chances.shape[1] > 1
        done = total[:, :step, step : step + width]
        if row >= max(1, begun):
            rows = min(step, height - (row - 1) * step)
            most, every = done[:, :rows].max(0), done[:, :rows].sum(0)
            sure = np.where(looked[:rows, step : step + width], np.rint(255 * kept.facts.right(most / every)), 0)
            yield row, done[:, :rows].argmax(0).astype(np.uint8), sure.astype(np.uint8)
        total = np.concatenate([total[:, step:], np.zeros_like(total[:, :step])], 1)
        looked = np.concatenate([looked[step:], np.zeros_like(looked[:step])])


def _row(windows: _Windows, kept: Kept, row: int) -> Iterator[tuple[int, np.ndarray]]:
    """The probabilities of each window of a row, (classes + 1, px, px)."""
    boxes = windows.boxes(row)
    fractions = windows.tissue.fractions(np.array([[box.left, box.top] for box in boxes]), boxes[0].width)
    background = np.zeros((len(kept.facts.classes) + 1, 1, 1), np.float32)
    background[0] = 1
    for column in np.flatnonzero(fractions == 0):
        yield int(column), background
    columns = np.flatnonzero(fractions > 0)
    for start in range(0, len(columns), _AT_ONCE):
        some = columns[start : start + _AT_ONCE]
        pictures = np.stack([windows.read(boxes[column]) for column in some])
        yield from zip(map(int, some), kept.learner.chances(pictures))


def _weights(px: int) -> np.ndarray:
    """(px, px) that fall from the middle to the border, where they are small and not nought."""
    line = 1 - np.abs((np.arange(px) + 0.5) / (px / 2) - 1)
    return np.outer(line, line).astype(np.float32)
