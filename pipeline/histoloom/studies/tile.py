"""Cut the manifest's slides into a tile store: splits first, then a task per slide, then the count of the bad ones."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from histoloom.cluster import Pool
from histoloom.config import Tile
from histoloom.data.commit import link_tree
from histoloom.data.groups import split_groups, study_splits
from histoloom.data.label_budget import seen_shares
from histoloom.data.manifest import Manifest, SlideEntry, read_manifest
from histoloom.data.schema import SPLITS
from histoloom.errors import Fault, HistoloomError, Note, lines_of, notes_among, refuse_faults
from histoloom.progress import console
from histoloom.slides.annotate import check_annotations, load_polygons_and_spots
from histoloom.slides.job import SlideJob
from histoloom.slides.left_out import remarks, totals
from histoloom.slides.open import BadSlide, open_slide
from histoloom.slides.summarise import summarised
from histoloom.slides.tiler import cut_slide
from histoloom.studies.work import Work


def run(work: Work) -> None:
    work.write_metrics(cut_slides(work))


def cut_slides(work: Work) -> dict[str, Any]:
    """Tile every slide of the manifest and publish the store; what is measured of it.

    Raises
    ------
    ManifestFaults
        with all faults of the manifests.
    HistoloomError
        when more than `max_bad_slides` slides can't be used.
    """
    config, seed, output = work.params.tile, work.params.seed, work.study.tiles
    manifest = read_manifest(config)
    splits = study_splits(manifest, config, seed)
    with work.pool(len(manifest.slides)) as call:
        notes = _check_stated(manifest, config, call)
        if config.summarise:
            slides = summarised(manifest.slides, config.summarise, work.parts.parent / "summaries")
            manifest = replace(manifest, slides=slides)
        shares = seen_shares(manifest, config, splits, seed)
        jobs = [
            _job(entry, manifest, config, splits, work.parts.resolve(), work.code, shares[entry.slide_id], seed)
            for entry in manifest.slides
        ]
        results = call(cut_slide, jobs, "tile")
    good = [r for r in results if "part" in r]
    bad = [r for r in results if "reason" in r]
    if unseen := len(results) - len(good) - len(bad):
        console.print(f"tile: {unseen} slide(s) left out, whose labels tile.labels.fraction hides")
    if not good and not bad:
        raise HistoloomError(
            "tile.labels.fraction hides the labels of every slide. Raise it, or draw slides or patients."
        )
    _write_slides([r for r in results if "part" in r or "reason" in r], work.reports)
    said = lines_of([Note(config.manifest, r["reason"], r["row"]) for r in bad])
    for line in said:
        console.print(f"quarantined: {line}", markup=False)
    if len(bad) > config.max_bad_slides or not good:
        raise HistoloomError(
            f"{len(bad)} of {len(results)} slides can't be used, and tile.max_bad_slides is {config.max_bad_slides}:\n"
            + "\n".join(f"  - {line}" for line in said)
            + "\nMend or remove them, or raise tile.max_bad_slides. The good slides' tiles are kept."
        )
    _publish(good, work, output)
    hidden = sum(r["hidden"].get("train", 0) for r in results if "hidden" in r)
    metrics = _metrics(good, bad, output) | {
        "label_fraction": config.labels.fraction,
        "train_tiles_hidden": hidden,
        "left_out": notes,
        "tissue_left_out": totals(good),
    }
    metrics["classes_without_train_tiles"] = _vanished(metrics["tiles_by_split"], config)
    for remark in remarks(good):
        console.print(f"tile: {remark}", markup=False)
    made = sum(r["made"] for r in good)
    console.print(f"tile: {made} slide(s) cut, {len(good) - made} taken as they were; {metrics['tiles']} tiles")
    return metrics


def _vanished(tiles: dict[str, dict[str, int]], config: Tile) -> list[str]:
    """The classes of which train has no tile; it is said, as nothing can be learned or made of them."""
    classes = config.labels.classes if config.labels.source != "none" else ()
    vanished = [name for name in classes if name not in tiles.get("train", {})]
    for name in vanished:
        there = [f"{tiles[split][name]} in {split}" for split in ("val", "test") if name in tiles.get(split, {})]
        hint = ", or raise tile.labels.fraction" if config.labels.fraction < 1 else ""
        console.print(
            f"tile: no train tile of '{name}' ({', '.join(there) or 'nor in val or test'}): it can't be learned or made. "
            f"Give train a patient of it, look at its spelling and tile.labels{hint}.",
            markup=False,
        )
    return vanished


def _check_stated(manifest: Manifest, config: Tile, call: Pool) -> list[str]:
    """Say what of polygons and spots is left out, and refuse their faults before any slide is cut; the lines that were said."""
    if "polygons" not in (config.labels.source, config.masks.source) and manifest.spots is None:
        return []
    items = [(entry, config, _spots_of(entry, manifest)) for entry in manifest.slides]
    found = [each for of_slide in call(check_stated, items, "tile, annotations") for each in of_slide]
    said = lines_of(notes_among(found))
    for line in said:
        console.print(f"note: {line}", markup=False)
    refuse_faults(found)
    return said


def check_stated(item: tuple[SlideEntry, Tile, pd.DataFrame | None]) -> list[Fault | Note]:
    """Faults and notes of what is stated about one slide; whether the slide itself can be used is not asked."""
    entry, config, spots = item
    try:
        with open_slide(entry.path, entry.mpp, config.max_slide_gpx) as slide:
            bounds = slide.bounds
    except BadSlide:
        bounds = None
    return check_annotations(load_polygons_and_spots(entry, config, spots, bounds), bounds)


def _spots_of(entry: SlideEntry, manifest: Manifest) -> pd.DataFrame | None:
    spots = manifest.spots
    return None if spots is None else spots[spots["slide_id"] == entry.slide_id].reset_index(drop=True)


def _job(entry, manifest: Manifest, config: Tile, splits: dict[str, str], parts: Path, code: str, shares, seed: int):
    own = {group: splits[group] for group in split_groups(entry, config)}
    return SlideJob(entry, config, own, _spots_of(entry, manifest), parts, code, shares, seed)


def _publish(good: list[dict], work: Work, output: Path) -> None:
    def write(staged: Path) -> None:
        for r in good:
            link_tree(work.parts / r["part"], staged / r["slide_id"])

    work.promote(write, output)
    work.keep_parts([r["part"] for r in good])


def _write_slides(results: list[dict], reports: Path) -> None:
    reports.mkdir(parents=True, exist_ok=True)
    columns = (
        "slide_id",
        "tiles",
        "with_tissue",
        "mpp_level0",
        "mpp_source",
        "width_px",
        "height_px",
        "bounds_x_level0_px",
        "bounds_y_level0_px",
        "stain",
        "tissue_share",
        "padding_share",
        "pen_share",
        "with_artefacts",
        "in_gaps",
        "out_of_focus",
        "tissue_beyond_grid",
        "reason",
    )
    with (reports / "slides.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(results)


def _metrics(good: list[dict], bad: list[dict], output: Path) -> dict:
    rows = pd.concat([pd.read_parquet(output / r["slide_id"] / "rows.parquet") for r in good])
    counts = rows.groupby(["split", rows["label"].fillna("unlabelled")]).size()
    by_split = {split: {label: int(n) for (s, label), n in counts.items() if s == split} for split in SPLITS}
    return {
        "slides": len(good),
        "quarantined": len(bad),
        "tiles": len(rows),
        "patients": int(rows["patient_id"].nunique()),
        "tiles_by_split": by_split,
    }
