"""The files that masks of a slide are written to, once every pixel is told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import histoloom
from histoloom.data.commit import hash_tree, sha256_file
from histoloom.data.slide_entry import PREDICTION
from histoloom.learners.kept import KeptFacts, lineage_of_learner
from histoloom.slides.open import slide_sha256
from histoloom.slides.output_folder import OutputFolder
from histoloom.slides.polygons import write_traced
from histoloom.slides.predicted import CERTAINTY, MASK, PredictionFacts
from histoloom.slides.pyramid import PyramidPicture, RasterFile, TiffFormat, write_pyramid
from histoloom.slides.slide import Slide
from histoloom.slides.tissue import TissueMap
from histoloom.slides.woven import FACTS

REGIONS = "mask.geojson"
_FORM = TiffFormat(compression="deflate")


@dataclass(frozen=True)
class PredictedSlide:
    """The size of what was written, px, at what scale, and how many regions of each class, and whether there is tissue."""

    width: int
    height: int
    mpp: float
    regions: dict[str, int]
    has_tissue: bool


@dataclass(frozen=True)
class Masks:
    """Class ids of every pixel, and how sure they are, from 0 to 255. downsample : level-0 px to a px."""

    ids: RasterFile
    sure: RasterFile
    downsample: float

    @classmethod
    def at(cls, parts: Path, size: tuple[int, int], downsample: float) -> Masks:
        """Those of (height, width) in a folder."""
        ids, sure = (RasterFile(parts / name, *size, 1) for name in ("mask", "sure"))
        return cls(ids, sure, downsample)

    def create(self) -> None:
        for raster in (self.ids, self.sure):
            raster.create()


def masks_folder(out: Path) -> OutputFolder:
    """The folder that masks are written to."""
    return OutputFolder(out, (MASK, CERTAINTY, REGIONS), PREDICTION, FACTS)


def write_masks(
    out: Path, masks: Masks, slide: Slide, kept: KeptFacts, model: Path, tissue: TissueMap
) -> PredictedSlide:
    """Write `mask.tif`, `certainty.tif`, `mask.geojson` and `prediction.json`, and clear away what they were made from.

    Parameters
    ----------
    kept : of the learner. model : the folder that it came from.
    """
    parts, size = masks.ids.path.parent, (masks.ids.height, masks.ids.width)
    made = parts / "made"
    made.mkdir(exist_ok=True)
    for name, raster in ((MASK, masks.ids), (CERTAINTY, masks.sure)):
        scratch = parts / f"{name}-levels"
        scratch.mkdir(exist_ok=True)
        write_pyramid(made / name, PyramidPicture(raster.read, size, kept.mpp), _FORM, scratch=scratch)
    regions = write_traced(made / REGIONS, masks.ids.read, size, kept.classes, masks.downsample)
    bounds = slide.bounds
    said = PredictionFacts(
        slide.path.name, slide_sha256(slide.path), slide.mpp, kept.classes, size[1], size[0], kept.mpp, bounds.left, bounds.top,
        masks.downsample, sha256_file(made / MASK), sha256_file(made / CERTAINTY), lineage_of_learner(model).record,
    )  # fmt: skip
    masks_folder(out).publish(parts, made, {
        **asdict(said), "learner": kept.name, "regions": regions, "tissue_fraction": float(tissue.mask.mean()),
        "model_sha256": hash_tree(model), "histoloom": histoloom.__version__, "note": "Predicted by a model. Nobody has looked at it.",
    })  # fmt: skip
    return PredictedSlide(size[1], size[0], kept.mpp, regions, bool(tissue.mask.any()))
