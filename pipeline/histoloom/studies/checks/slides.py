"""Each slide of a manifest, opened as `tile` will open it: its faults, what is left out of it, and the classes on it."""

from __future__ import annotations

from dataclasses import dataclass

from histoloom.config import Tile
from histoloom.data.manifest import Manifest
from histoloom.data.pixel_box import PixelBox
from histoloom.data.slide_entry import SlideEntry
from histoloom.errors import Fault, Note
from histoloom.progress import track
from histoloom.slides.annotate import Annotations, load_annotations, load_polygons_and_spots
from histoloom.slides.annotation_checks import check_annotations
from histoloom.slides.left_out import LeftOut, left_out, remarks
from histoloom.slides.open import open_slide
from histoloom.slides.slide import BadSlide, Slide
from histoloom.slides.tile_selection import NoTiles, check_choice, choose_tiles
from histoloom.slides.tiler import check_source
from histoloom.slides.tissue import detect_tissue
from histoloom.slides.train_classes import AnnotatedClasses, annotated_classes

_PROBE_PX = 64


@dataclass(frozen=True)
class SlideFacts:
    """What is known of a slide that can be used. width_px, height_px : of level 0. mpp : of level 0, µm/px."""

    width_px: int
    height_px: int
    mpp: float
    classes: AnnotatedClasses


def open_slides(manifest: Manifest, config: Tile) -> tuple[dict[str, SlideFacts], list[Fault | Note]]:
    """Slide id to the facts of each slide that can be used; faults of the slides, and notes on what is left out."""
    usable: dict[str, SlideFacts] = {}
    found: list[Fault | Note] = []
    counts: dict[str, LeftOut] = {}
    for entry in track(manifest.slides, "slides", len(manifest.slides)):
        annotations, bounds = None, None
        try:
            with open_slide(entry.path, entry.mpp, config.max_slide_gpx) as slide:
                bounds = slide.bounds
                annotations = _read(slide, entry, manifest, config)
                classes = annotated_classes(annotations, slide.size)
                usable[entry.slide_id] = SlideFacts(slide.width, slide.height, slide.mpp, classes)
                counts[entry.slide_id] = _what_is_left_out(slide, config)
        except NoTiles as error:
            found.append(Fault(config.stated_in, error.problem, error.remedy, entry.row, "path"))
        except BadSlide as error:
            remedy = "mend or replace the file, or remove the row."
            found.append(Fault(config.stated_in, str(error), remedy, entry.row, "path"))
        if annotations is None:
            annotations = load_polygons_and_spots(entry, config, manifest.spots, bounds)
        found += check_annotations(annotations, bounds)
    return usable, found + [Note(config.stated_in, remark) for remark in remarks(counts)]


def _read(slide: Slide, entry: SlideEntry, manifest: Manifest, config: Tile) -> Annotations:
    """Read small regions all over a slide, so that a file that breaks off shows; and its annotations."""
    check_source(slide, config)
    for row in range(4):
        for col in range(4):
            x, y = (slide.width - _PROBE_PX) * col / 3, (slide.height - _PROBE_PX) * row / 3
            slide.read(PixelBox(max(x, 0), max(y, 0), _PROBE_PX, _PROBE_PX), 1.0)
    return load_annotations(entry, config, manifest.spots, slide.size, slide.bounds)


def _what_is_left_out(slide: Slide, config: Tile) -> LeftOut:
    tissue = detect_tissue(slide, config.tissue)
    choice = choose_tiles(slide, tissue, config, config.mpp)
    check_choice(slide, tissue, config, choice)
    return left_out(tissue, [choice])
