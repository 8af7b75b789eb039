"""One slide to one part of the tile store."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from histoloom.config import Tile
from histoloom.data.commit import commit_part
from histoloom.data.label_budget import SQUARE_TILES, is_hidden
from histoloom.data.nuclei_layout import outlines
from histoloom.data.schema import TILE_ROW, write_rows
from histoloom.data.store import UNKNOWN, TileWriter
from histoloom.slides import stain
from histoloom.slides.annotate import Annotations, load_annotations
from histoloom.slides.choose import check_choice, choose_tiles
from histoloom.slides.describe import class_shares, group_of, label_of, tile_row
from histoloom.slides.focus import sharpness
from histoloom.slides.grid import blocks
from histoloom.slides.job import SlideJob
from histoloom.slides.left_out import left_out
from histoloom.slides.open import BadSlide, Slide, open_slide, read_ahead
from histoloom.slides.overlay import draw_overlay
from histoloom.slides.regions import Regions
from histoloom.slides.stain_mask import REACH_UM, StainMask, fit_stain_mask
from histoloom.slides.tissue import FIT_TILES, detect_tissue, fullest


class NothingSeen(Exception):
    """A slide of whose labels the study sees none; it holds how many tiles are hidden, by split."""


BLOCK_PX = 2048
"""Side of what is read at once, in pixels of the level that it is read from."""


def cut_slide(job: SlideJob) -> dict:
    """Make a slide's part, unless it is there.

    Returns
    -------
    A report of the slide: `part`, counts, scale and its source; `reason`, when the slide can't be used; or neither, when
    the study sees none of its labels.
    """
    name = job.part
    made = not (job.parts / name).exists()
    try:
        record = commit_part(job.parts, name, lambda folder: write_part(job, folder))
    except NothingSeen as error:
        return {"slide_id": job.entry.slide_id, "hidden": error.args[0]}
    except BadSlide as error:
        return {"slide_id": job.entry.slide_id, "row": job.entry.row, "reason": str(error)}
    return {"slide_id": job.entry.slide_id, "part": name, "made": made, **record["info"]}


def write_part(job: SlideJob, folder: Path) -> dict:
    """Cut a slide into a part's folder; returns the facts of the slide."""
    config, entry = job.config, job.entry
    with open_slide(entry.path, entry.mpp, config.max_slide_gpx) as slide:
        check_scale(slide, config)
        annotations = load_annotations(entry, config, job.spots, *slide.size, slide.bounds)
        tissue = detect_tissue(slide, config.tissue)
        scales = (config.mpp, *config.more_mpp)
        choices = {mpp: choose_tiles(slide, tissue, config, mpp) for mpp in scales}
        check_choice(slide, tissue, config, choices[config.mpp])
        chosen = {mpp: (choice.corners, choice.fractions) for mpp, choice in choices.items()}
        normaliser, segmenter = _fit_to(slide, *chosen[config.mpp], config)
        hidden = {mpp: _hidden(job, slide, chosen[mpp][0], mpp) for mpp in scales}
        count = Counter(hidden[config.mpp].values())
        if config.labels.unlabelled == "drop":
            chosen = {mpp: ([c for c in corners if c not in hidden[mpp]], f) for mpp, (corners, f) in chosen.items()}
        if not chosen[config.mpp][0]:
            raise NothingSeen(dict(count))
        masked = config.masks.source != "none"
        nuclei = segmenter is not None or annotations.instances is not None
        arrays = ["image"] + ["mask"] * masked + ["instance", "edge"] * nuclei
        with TileWriter(folder, config.tile_px, arrays) as writer:
            cut, blurred = zip(
                *(
                    _cut(job, slide, annotations, *chosen[mpp], hidden[mpp], normaliser, segmenter, mpp, writer)
                    for mpp in scales
                )
            )
            rows = pd.DataFrame([row for of_scale in cut for row in of_scale], columns=TILE_ROW.names)
            if rows.empty:
                raise _none_left(entry.slide_id, len(chosen[config.mpp][0]), count, sum(blurred), config)
            writer.finish()
            write_rows(rows, folder / "rows.parquet", TILE_ROW)
            shown = [(row["x_level0_px"], row["y_level0_px"], row["split"]) for row in cut[0]]
            if job.shares:
                annotations = replace(annotations, regions=Regions.of(), spots=None)
            overlay = draw_overlay(slide, tissue, annotations, shown, config.tile_px * config.mpp / slide.mpp)
            overlay.save(folder / "thumbnail.jpg", quality=85)
        return {
            "tiles": len(rows),
            "hidden": dict(count),
            "with_tissue": sum(len(corners) for corners, _ in chosen.values()),
            "out_of_focus": sum(blurred),
            **left_out(tissue, list(choices.values())),
            "mpp_level0": slide.mpp,
            "mpp_source": slide.mpp_source,
            "width_px": slide.width,
            "height_px": slide.height,
            "bounds_x_level0_px": slide.bounds[0],
            "bounds_y_level0_px": slide.bounds[1],
            "stain": normaliser.note,
        }


def _none_left(slide_id: str, with_tissue: int, hidden: Counter, blurred: int, config: Tile) -> Exception:
    """Why none of the tiles with tissue was written."""
    if hidden:
        return NothingSeen(dict(hidden))
    if blurred and config.tissue.out_of_focus == "drop":
        return BadSlide(
            f"{slide_id}: {with_tissue} tiles have tissue, and of those with a label {blurred} are out of focus, which is all. "
            "Lower tile.tissue.min_sharpness, or set out_of_focus: keep."
        )
    return BadSlide(
        f"{slide_id}: {with_tissue} tiles have tissue, and none has a label. Check the annotations, or set "
        "tile.labels.unlabelled: keep."
    )


def check_scale(slide: Slide, config: Tile) -> None:
    """Refuse a target that is finer than the slide, unless params allow it."""
    finest = min((config.mpp, *config.more_mpp))
    if finest / slide.mpp < 0.98 and not config.upsample:
        raise BadSlide(
            f"{slide.path.name}: the target of {finest} µm/px is finer than the slide's {slide.mpp:.3f}. "
            "Choose a coarser tile.mpp, or allow tile.upsample."
        )


def _fit_to(slide: Slide, corners, fractions, config: Tile) -> tuple[stain.Normaliser, StainMask | None]:
    """What is fitted once per slide, to those of its tiles that hold most tissue."""
    downsample = config.mpp / slide.mpp
    masks = config.masks
    if config.stain == "none" and masks.source != "stain":
        return stain.fit("none", np.empty(0)), None
    chosen = [corners[i] for i in fullest(np.array([fractions[c] for c in corners]), FIT_TILES)]
    sample = np.stack(
        [slide.read(x * downsample, y * downsample, config.tile_px, config.tile_px, downsample) for x, y in chosen]
    )
    segmenter = fit_stain_mask(masks.classes, sample, config.mpp) if masks.source == "stain" else None
    return stain.fit(config.stain, sample), segmenter


def _cut(
    job: SlideJob,
    slide: Slide,
    annotations: Annotations,
    corners,
    fractions,
    hidden,
    normaliser: stain.Normaliser,
    segmenter: StainMask | None,
    mpp: float,
    writer: TileWriter,
) -> tuple[list[dict], int]:
    """Cut the tiles of one scale; their rows, and how many are out of focus."""
    config, n, downsample = job.config, job.config.tile_px, mpp / slide.mpp
    margin = 0 if segmenter is None else round(REACH_UM / mpp)
    rows, blurred = [], 0
    grouped = list(blocks(corners, n, max(n, int(BLOCK_PX / slide.shrinkage(downsample)))))
    boxes = [
        ((left - margin) * downsample, (top - margin) * downsample, width + 2 * margin, height + 2 * margin)
        for (left, top, width, height), _ in grouped
    ]
    with read_ahead(slide, boxes, downsample) as pictures:
        for ((left, top, _, _), members), box, picture in zip(grouped, boxes, pictures):
            labels, mask, instances = _annotate_block(annotations, box, downsample)
            seen = None if segmenter is None else segmenter.look(picture, mpp)
            if seen is not None:
                mask, instances = seen.mask, (seen.nuclei, outlines(seen.nuclei))
            for x, y in members:
                row, column = y - top + margin, x - left + margin
                at = np.s_[row : row + n, column : column + n]
                spot = annotations.spot((x + n / 2) * downsample, (y + n / 2) * downsample, slide.mpp)
                if (x, y) in hidden:
                    shares, label = {}, None
                    spot = None if spot is None else spot[["spot_id"]]
                else:
                    shares = class_shares(None if labels is None else labels[at], config.labels.classes)
                    label = label_of(job, shares, spot)
                if label is None and config.labels.source != "none" and config.labels.unlabelled == "drop":
                    continue
                if sharpness(picture[at], mpp) < config.tissue.min_sharpness:
                    blurred += 1
                    if config.tissue.out_of_focus == "drop":
                        continue
                known = seen is not None or (x, y) not in hidden
                tiles = {"image": normaliser.apply(picture[at])}
                if mask is not None:
                    tiles["mask"] = mask[at] if known else np.full((n, n), UNKNOWN, np.uint8)
                if instances is not None:
                    tiles |= {name: a[at] * known for name, a in zip(("instance", "edge"), instances)}
                writer.add(**tiles)
                words, masked = (
                    "" if seen is None or segmenter is None else segmenter.words(seen.crop(at)),
                    mask is not None and known,
                )
                rows.append(tile_row(job, slide, (x, y), mpp, label, shares, fractions[x, y], spot, words, masked))
    return rows, blurred


def _hidden(job: SlideJob, slide: Slide, corners, mpp: float) -> dict[tuple[int, int], str]:
    """Corners of the tiles whose labels the study may not see, to their split."""
    if not job.shares:
        return {}
    config, downsample = job.config, mpp / slide.mpp
    side, square = (
        config.tile_px * scale / slide.mpp for scale in (mpp, SQUARE_TILES * max((config.mpp, *config.more_mpp)))
    )
    splits = {corner: job.splits[group_of(job, slide, corner, downsample)] for corner in corners}
    return {
        (x, y): split
        for (x, y), split in splits.items()
        if is_hidden(
            job.shares.get(split, 1.0),
            f"{job.entry.slide_id}/{split}",
            (x * downsample, y * downsample, side),
            square,
            job.seed,
        )
    }


def _annotate_block(annotations: Annotations, box, downsample: float):
    config = annotations.config
    labels = mask = None
    if config.labels.source in ("polygons", "raster"):
        labels = annotations.ids(config.labels.classes, config.labels.source, box, downsample)
    if config.masks.source in ("polygons", "raster"):
        same = (config.masks.source, config.masks.classes) == (config.labels.source, config.labels.classes)
        mask = labels if same else annotations.ids(config.masks.classes, config.masks.source, box, downsample)
    return labels, mask, annotations.instance_ids(box, downsample)
