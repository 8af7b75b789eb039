"""One slide to one part of the tile store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pandas as pd

from histoloom.config import Tile
from histoloom.data.commit import commit_part
from histoloom.data.label_budget import SQUARE_TILES, is_hidden
from histoloom.data.pixel_box import PixelBox
from histoloom.data.schema import TILE_ROW, write_rows
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.store import TileWriter, cut_arrays
from histoloom.slides.annotate import Annotations, load_annotations
from histoloom.slides.cut import fit_cutter
from histoloom.slides.describe import TilePlace, group_of
from histoloom.slides.grid import Corner
from histoloom.slides.job import SlideJob
from histoloom.slides.left_out import SlideRecord, left_out
from histoloom.slides.open import open_slide
from histoloom.slides.overlay import draw_overlay
from histoloom.slides.regions import Regions
from histoloom.slides.slide import BadSlide, Slide
from histoloom.slides.tile_selection import Choice, check_choice, choose_tiles
from histoloom.slides.tissue import TissueMap, detect_tissue
from histoloom.slides.woven import NOTE

_FORMS_DIFFER = 0.02
"""Fraction by which the sides of a slide and its partner may differ in proportion."""


class AllLabelsHidden(Exception):
    """A slide none of whose labels is visible; it holds how many tiles are hidden, by split."""


@dataclass(frozen=True)
class SlideResult:
    """What became of a slide.

    facts : of a slide that was cut. reason : why one can't be used. One whose labels are all hidden has neither.
    part : name of the part of a slide that was cut; `made` is whether it was cut now, and not taken as it was.
    hidden : split to the number of tiles whose labels the study may not see.
    """

    entry: SlideEntry
    facts: SlideRecord | None = None
    reason: str | None = None
    part: str = ""
    made: bool = False
    hidden: dict[str, int] = field(default_factory=dict)


def cut_slide(job: SlideJob) -> SlideResult:
    """Make a slide's part, unless it is there."""
    name = job.part
    made = not (job.parts / name).exists()
    try:
        record = commit_part(job.parts, name, lambda folder: write_part(job, folder))
    except AllLabelsHidden as error:
        return SlideResult(job.entry, hidden=error.args[0])
    except BadSlide as error:
        return SlideResult(job.entry, reason=str(error))
    facts = cast(SlideRecord, record["info"])
    return SlideResult(job.entry, facts, part=name, made=made, hidden=facts["hidden"])


def write_part(job: SlideJob, folder: Path) -> SlideRecord:
    """Cut a slide into a part's folder.

    Raises
    ------
    BadSlide
        when it can't be used.
    AllLabelsHidden
        when the study may see none of its labels.
    """
    config, entry = job.config, job.entry
    with ExitStack() as stack:
        slide = stack.enter_context(open_slide(entry.path, entry.mpp, config.max_slide_gpx))
        check_source(slide, config, woven=job.woven)
        partner = _partner(stack, job, slide)
        mpp = slide.mpp if job.reads_prediction else None
        annotations = load_annotations(entry, config, job.spots, slide.size, slide.bounds, mpp)
        tissue = detect_tissue(slide, config.tissue)
        choices = [choose_tiles(slide, tissue, config, mpp) for mpp in (config.mpp, *config.more_mpp)]
        penned = [_of_train(job, slide, choice) for choice in choices]
        repair = penned if job.repair is not None else [set() for _ in choices]
        choices = [choice.repaired(corners) for choice, corners in zip(choices, repair)]
        check_choice(slide, tissue, config, choices[0])
        cutter = fit_cutter(job, slide, annotations, choices[0], partner, tissue)
        hidden = [_hidden(job, slide, choice) for choice in choices]
        count = Counter(hidden[0].values())
        if config.labels.unlabelled == "drop":
            choices = [choice.without(of_scale) for choice, of_scale in zip(choices, hidden)]
        if not choices[0].fractions:
            raise AllLabelsHidden(dict(count))
        with TileWriter(folder, cut_arrays(config.tile_px, cutter.arrays)) as writer:
            cut = [cutter.cut(choice, of_scale, writer, pen) for choice, of_scale, pen in zip(choices, hidden, repair)]
            rows = pd.DataFrame([row for of_scale in cut for row in of_scale.rows], columns=TILE_ROW.names)
            blurred = sum(of_scale.out_of_focus for of_scale in cut)
            if rows.empty:
                raise AllLabelsHidden(dict(count)) if count else _none_left(job, len(choices[0].fractions), blurred)
            writer.finish()
            write_rows(rows, folder / "rows.parquet", TILE_ROW)
            _write_overlay(job, slide, tissue, annotations, cut[0].rows, folder / "thumbnail.jpg")
        return {
            **left_out(tissue, choices),
            "mpp_level0": slide.mpp,
            "mpp_source": slide.mpp_source,
            "width_px": slide.width,
            "height_px": slide.height,
            "bounds_x_level0_px": slide.bounds.left,
            "bounds_y_level0_px": slide.bounds.top,
            "tiles": len(rows),
            "predicted": int((rows["predicted"] & (rows["split"] == "train")).sum()),
            "train_with_pen": sum(map(len, penned)),
            "repaired": int((rows["repaired"] > 0).sum()),
            "hidden": dict(count),
            "with_tissue": sum(len(choice.fractions) for choice in choices),
            "out_of_focus": blurred,
            "stain": cutter.normaliser.note,
        }


def _of_train(job: SlideJob, slide: Slide, choice: Choice) -> set[Corner]:
    """Of the tiles that a model could rid of pen, those of train."""
    return {
        corner for corner in choice.penned if job.splits[group_of(job, TilePlace(slide, corner, choice.mpp))] == "train"
    }


def _partner(stack: ExitStack, job: SlideJob, slide: Slide) -> Slide | None:
    """The slide's partner, where it has one.

    Raises
    ------
    BadSlide
        when it has another form than the slide: they are to lie over each other, place by place.
    """
    if job.entry.partner is None:
        return None
    partner = stack.enter_context(open_slide(job.entry.partner, slide.mpp, job.config.max_slide_gpx))
    _refuse_made(partner)
    if abs(partner.height / slide.height - partner.width / slide.width) > _FORMS_DIFFER * partner.width / slide.width:
        sizes = " and ".join(f"{one.width} x {one.height} px" for one in (slide, partner))
        raise BadSlide(
            f"{job.entry.slide_id}: the slide and its partner have {sizes}, which is another form. Register them first, to one extent."
        )
    return partner


def _none_left(job: SlideJob, with_tissue: int, blurred: int) -> BadSlide:
    """Why none of the tiles with tissue was written."""
    slide_id = job.entry.slide_id
    if blurred and job.config.tissue.out_of_focus == "drop":
        return BadSlide(
            f"{slide_id}: {with_tissue} tiles have tissue, and of those with a label {blurred} are out of focus, which is all. "
            "Lower tile.tissue.min_sharpness, or set out_of_focus: keep."
        )
    return BadSlide(
        f"{slide_id}: {with_tissue} tiles have tissue, and none has a label. Check the annotations, or set "
        "tile.labels.unlabelled: keep."
    )


def _write_overlay(
    job: SlideJob, slide: Slide, tissue: TissueMap, annotations: Annotations, rows: Sequence[dict[str, Any]], path: Path
) -> None:
    """Draw the tiles of tile.mpp, without annotations where some of them are hidden."""
    if job.visible_fractions:
        annotations = replace(annotations, regions=Regions.of(), spots=None)
    side = job.config.tile_px * job.config.mpp / slide.mpp
    tiles = [(PixelBox(row["x_level0_px"], row["y_level0_px"], side, side), row["split"]) for row in rows]
    draw_overlay(slide, tissue, annotations, tiles).save(path, quality=85)


def check_source(slide: Slide, config: Tile, *, woven: bool = False) -> None:
    """Refuse a slide that a model made, unless it is known to be woven; and a target that is finer than the slide, unless params allow it."""
    if not woven:
        _refuse_made(slide)
    finest = min((config.mpp, *config.more_mpp))
    if finest / slide.mpp < 0.98 and not config.upsample:
        raise BadSlide(
            f"{slide.path.name}: the target of {finest} µm/px is finer than the slide's {slide.mpp:.3f}. "
            "Choose a coarser tile.mpp, or allow tile.upsample."
        )


def _refuse_made(slide: Slide) -> None:
    """Refuse a slide that a model made, whose ancestors nobody would know."""
    if slide.handle.properties.get("tiff.ImageDescription") == NOTE:
        raise BadSlide(
            f"{slide.path.name}: a model made it, no scanner. Its tiles would pass for real ones. To make tiles of woven slides, state them in "
            "sample_slides."
        )


def _hidden(job: SlideJob, slide: Slide, choice: Choice) -> dict[Corner, str]:
    """Corners of the tiles whose labels the study may not see, to their split."""
    if not job.visible_fractions:
        return {}
    config, found = job.config, {}
    side, square = (
        config.tile_px * scale / slide.mpp for scale in (choice.mpp, SQUARE_TILES * max((config.mpp, *config.more_mpp)))
    )
    for corner in choice.fractions:
        place = TilePlace(slide, corner, choice.mpp)
        split = job.splits[group_of(job, place)]
        tile = PixelBox(corner[0] * place.downsample, corner[1] * place.downsample, side, side)
        name, visible = f"{job.entry.slide_id}/{split}", job.visible_fractions.get(split, 1.0)
        if is_hidden(tile, square, name, visible, job.seed):
            found[corner] = split
    return found
