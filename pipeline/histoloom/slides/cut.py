"""The tiles of one scale of a slide: read in blocks, labelled, masked, normalised and written."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.ndimage import label

from histoloom.data.nuclei_layout import outlines
from histoloom.data.pixel_box import PixelBox
from histoloom.data.store import UNKNOWN, TileWriter
from histoloom.slides import stain
from histoloom.slides.annotate import Annotations
from histoloom.slides.describe import TileFacts, TileLabel, TilePlace, group_of, label_tile
from histoloom.slides.focus import sharpness
from histoloom.slides.grid import Corner, blocks
from histoloom.slides.job import SlideJob
from histoloom.slides.slide import Slide, read_ahead
from histoloom.slides.stain_mask import REACH_UM, Segmentation, StainMask, fit_stain_mask
from histoloom.slides.tile_selection import Choice
from histoloom.slides.tissue import FIT_TILES, TissueMap, fullest

BLOCK_PX = 2048
"""Side of what is read at once, in pixels of the level that it is read from."""


class CutTiles(NamedTuple):
    """The rows of the tiles of one scale, and how many tiles are out of focus, dropped ones among them."""

    rows: list[dict[str, Any]]
    out_of_focus: int


@dataclass(frozen=True)
class _Patch:
    """A piece of a slide at one scale, with what is known of its pixels.

    picture : (h, w, 3) uint8.
    labels : (h, w) uint8, class ids of tile labels.
    arrays : `mask`, `instance` and `edge` as the store has them, as far as they are known.
    predicted : (h, w) uint8, class ids as a learner has them.
    segmented : what its stain shows, where that is asked for.
    """

    picture: np.ndarray
    labels: np.ndarray | None
    arrays: dict[str, np.ndarray]
    segmented: Segmentation | None
    predicted: np.ndarray | None

    def crop(self, at: tuple[slice, slice]) -> _Patch:
        labels, predicted = (None if ids is None else ids[at] for ids in (self.labels, self.predicted))
        segmented = None if self.segmented is None else self.segmented.crop(at)
        arrays = {name: array[at] for name, array in self.arrays.items()}
        return _Patch(self.picture[at], labels, arrays, segmented, predicted)


@dataclass(frozen=True)
class Cutter:
    """What cuts the tiles of one slide.

    normaliser, segmenter : fitted to the slide; the second where masks are told by stain.
    partner : the slide that shows the same tissue, place by place. tissue : of the slide, with its pen.
    """

    job: SlideJob
    slide: Slide
    annotations: Annotations
    normaliser: stain.Normaliser | stain.RememberedColours
    segmenter: StainMask | None
    partner: Slide | None
    tissue: TissueMap

    @property
    def arrays(self) -> list[str]:
        """Names of the arrays that tiles have."""
        nuclei = self.segmenter is not None or self.annotations.instances is not None
        masked = self.job.config.masks.source != "none"
        return ["image"] + ["mask"] * masked + ["instance", "edge"] * nuclei + ["partner"] * (self.partner is not None)

    @property
    def _is_annotated(self) -> bool:
        """Whether masks are the slide's own, and not all of them a learner's."""
        return self.annotations.predicted is None or self.job.entry.masks_annotated(self.job.config)

    def cut(
        self, choice: Choice, hidden: Container[Corner], writer: TileWriter, repair: Container[Corner] = ()
    ) -> CutTiles:
        """Write the tiles of one scale.

        Parameters
        ----------
        hidden : corners of the tiles whose labels the study may not see. repair : of those whose pen is made anew.
        """
        n, downsample = self.job.config.tile_px, choice.mpp / self.slide.mpp
        margin = 0 if self.segmenter is None else round(REACH_UM / choice.mpp)
        side = max(n, int(BLOCK_PX / self.slide.shrinkage(downsample)))
        grouped = list(blocks(choice.fractions, n, side, margin))
        boxes = [box.scaled(downsample) for box, _ in grouped]
        rows: list[dict[str, Any]] = []
        blurred = 0
        with read_ahead(self.slide, boxes, downsample) as pictures:
            for (box, corners), level0, picture in zip(grouped, boxes, pictures):
                block = self._annotated(picture, level0, choice.mpp)
                for x, y in corners:
                    top, left = int(y - box.top), int(x - box.left)
                    patch = block.crop(np.s_[top : top + n, left : left + n])
                    place = TilePlace(self.slide, (x, y), choice.mpp)
                    found = self._label(place, patch, hidden=(x, y) in hidden)
                    if self._lacks_label(found):
                        continue
                    sharp = sharpness(patch.picture, choice.mpp) >= self.job.config.tissue.min_sharpness
                    blurred += not sharp
                    if not sharp and self.job.config.tissue.out_of_focus == "drop":
                        continue
                    hide = self.job.config.masks.source != "stain" and (x, y) in hidden
                    patch = self._shown(patch, hide=hide)
                    known = not hide and self._is_annotated
                    row = self._row(place, found, patch, choice.fractions[x, y], known=known)
                    if (x, y) in repair:
                        patch, row["repaired"] = self._repaired(patch, place, row["tile_id"])
                    writer.add(image=self.normaliser.apply(patch.picture), **patch.arrays, **self._of_partner(place))
                    rows.append(row)
        return CutTiles(rows, blurred)

    def _annotated(self, picture: np.ndarray, box: PixelBox[float], mpp: float) -> _Patch:
        """A block with its annotations; its box is at level 0."""
        config, downsample = self.annotations.config, mpp / self.slide.mpp
        ids: dict[tuple[str, tuple[str, ...]], np.ndarray] = {}
        for source, classes in {(of.source, of.classes) for of in (config.labels, config.masks)}:
            if source in ("polygons", "raster"):
                ids[source, classes] = self.annotations.ids(classes, source, box, downsample)
        labels, mask = (ids.get((of.source, of.classes)) for of in (config.labels, config.masks))
        if config.masks.source == "spots":
            mask = self.annotations.regions_of_spots(config.masks.classes, box, downsample, self.slide.mpp)
        arrays = {} if mask is None else {"mask": mask}
        if self.segmenter is None:
            nuclei, predicted = self.annotations.instance_ids(box, downsample), self.annotations.predicted
            arrays |= dict(zip(("instance", "edge"), nuclei or ()))
            return _Patch(
                picture, labels, arrays, None, None if predicted is None else predicted.nearest(box, downsample)
            )
        segmented = self.segmenter.segment(picture, mpp)
        if mask is not None:
            segmented = replace(segmented, mask=np.where(segmented.mask > 0, segmented.mask, mask))
        return _Patch(picture, labels, segmented.arrays, segmented, None)

    def _label(self, place: TilePlace, patch: _Patch, *, hidden: bool) -> TileLabel:
        half, (x, y) = self.job.config.tile_px / 2, place.corner
        middle = (x + half) * place.downsample, (y + half) * place.downsample
        spot = self.annotations.spot(*middle, self.slide.mpp)
        if hidden:
            return TileLabel(spot=None if spot is None else spot[["spot_id"]])
        return label_tile(self.job, patch.labels, spot)

    def _lacks_label(self, found: TileLabel) -> bool:
        labels = self.job.config.labels
        return found.label is None and labels.source != "none" and labels.unlabelled == "drop"

    def _shown(self, patch: _Patch, *, hide: bool) -> _Patch:
        """What a tile may show: nothing of annotations that are hidden, and a learner's mask where there is none.

        Nuclei that it tells apart are islands of its mask; they stand where the slide's own numbers are hidden.
        """
        arrays, predicted = dict(patch.arrays), patch.predicted
        if not hide and self._is_annotated:
            return replace(patch, predicted=None)
        if "mask" in arrays:
            arrays["mask"] = np.full_like(arrays["mask"], UNKNOWN)
        if hide:
            arrays |= {name: np.zeros_like(array) for name, array in arrays.items() if name != "mask"}
        if predicted is None or (predicted == UNKNOWN).all():
            return replace(patch, arrays=arrays, predicted=None)
        arrays["mask"] = predicted
        if hide and "instance" in arrays:
            numbers = label((predicted > 0) & (predicted != UNKNOWN))[0].astype(np.int32)
            arrays |= {"instance": numbers, "edge": outlines(numbers)}
        return replace(patch, arrays=arrays, predicted=predicted)

    def _repaired(self, patch: _Patch, place: TilePlace, tile_id: str) -> tuple[_Patch, float]:
        """The tile without its pen, and the fraction of it that was made. Nobody knows what is shown there, so its masks don't say."""
        assert self.job.repair is not None, "tiles are repaired by something"
        n, (x, y) = self.job.config.tile_px, place.corner
        pen = self.tissue.pen_in(PixelBox(x, y, n, n).scaled(place.downsample), n)
        picture, arrays = self.job.repair(patch.picture, pen, tile_id), {}
        for name, array in patch.arrays.items():
            arrays[name] = np.where(pen, array.dtype.type(UNKNOWN if name == "mask" else 0), array)
        return replace(patch, picture=picture, arrays=arrays), float(pen.mean())

    def _of_partner(self, place: TilePlace) -> dict[str, np.ndarray]:
        """The tile's place on the partner, which shows the same extent, perhaps in more or fewer pixels."""
        if self.partner is None:
            return {}
        n, (x, y) = self.job.config.tile_px, place.corner
        downsample = place.downsample * self.partner.width / self.slide.width
        return {"partner": self.partner.read(PixelBox(x, y, n, n).scaled(downsample), downsample)}

    def _row(
        self, place: TilePlace, found: TileLabel, patch: _Patch, tissue_fraction: float, *, known: bool
    ) -> dict[str, Any]:
        job, entry, (x, y), group = self.job, self.job.entry, place.corner_level0_px, group_of(self.job, place)
        where = {
            "tile_id": f"{entry.slide_id}_{x}_{y}" + ("" if place.mpp == job.config.mpp else f"_{place.mpp:g}"),
            "slide_id": entry.slide_id,
            "patient_id": entry.patient_id,
            "split_group": group,
            "split": job.splits[group],
            "x_level0_px": x,
            "y_level0_px": y,
            "mpp": place.mpp,
        }
        words = "" if self.segmenter is None or patch.segmented is None else self.segmenter.words(patch.segmented)
        masked = "mask" in patch.arrays and known
        predicted = patch.predicted is not None
        return TileFacts(where, entry.caption, entry.extra, found, tissue_fraction, words, masked, predicted).row(
            job.config
        )


def fit_cutter(
    job: SlideJob, slide: Slide, annotations: Annotations, choice: Choice, partner: Slide | None, tissue: TissueMap
) -> Cutter:
    """Fit what is fitted once per slide, to those of the chosen tiles that hold most tissue."""
    config, masks = job.config, job.config.masks
    if config.stain == "none" and not masks.by_stain:
        return Cutter(job, slide, annotations, stain.fit("none", np.empty(0)), None, partner, tissue)
    downsample, corners = choice.mpp / slide.mpp, choice.corners
    chosen = [corners[i] for i in fullest(np.array([*choice.fractions.values()]), FIT_TILES)]
    boxes = [PixelBox(x, y, config.tile_px, config.tile_px).scaled(downsample) for x, y in chosen]
    sample = np.stack([slide.read(box, downsample) for box in boxes])
    segmenter = fit_stain_mask(masks.classes, sample, choice.mpp) if masks.by_stain else None
    return Cutter(job, slide, annotations, stain.fit(config.stain, sample).for_many(), segmenter, partner, tissue)
