"""Cut the manifest's slides into a tile store, and take up tiles that are cut already: splits first, then a task per slide and per part
of a set, then the count of the bad ones."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd

from histoloom.cluster import Pool
from histoloom.config import Tile
from histoloom.data.commit import link_tree
from histoloom.data.few_groups import empty_splits, few_groups
from histoloom.data.found import listed
from histoloom.data.groups import split_groups, study_splits
from histoloom.data.held_out_classes import class_counts, lacking, lacking_in_words
from histoloom.data.label_budget import visible_fractions
from histoloom.data.manifest import PART_MARK, Manifest, read_manifest
from histoloom.data.schema import SPLITS
from histoloom.data.slide_entry import SlideEntry
from histoloom.data.slide_files import bytes_of_slide
from histoloom.errors import HistoloomError, Note, lines_of, notes_among, refuse_faults
from histoloom.progress import console
from histoloom.registry import registered
from histoloom.slides.annotation_checks import check_slide_annotations
from histoloom.slides.job import SlideJob
from histoloom.slides.left_out import TissueLeftOut, remarks, totals
from histoloom.slides.predicted import lineage_of_prediction
from histoloom.slides.summarise import summarised
from histoloom.slides.tile_set_job import Planned, SetJob, set_jobs
from histoloom.slides.tile_set_part import SetResult, make_set_part
from histoloom.slides.tile_set_summary import SetFacts, check_bad, remarks_on_sets, set_columns, summed
from histoloom.slides.tiler import SlideResult, cut_slide
from histoloom.studies.named_files import Hashes
from histoloom.studies.stage_work import Work


class TileMetrics(TypedDict):
    """What `tile` measures of the store.

    tiles_by_split : split to label to tiles.
    train_tiles_hidden : train tiles of tile.mpp whose labels tile.labels.fraction hides.
    left_out : what was said of polygons and spots that are left out.
    slides : those that were cut, and those that tiles of sets state.
    sets : name to what became of a set of tiles.
    classes_without_held_out_tiles : val or test to the classes that train shows and it does not.
    """

    slides: int
    quarantined: int
    tiles: int
    patients: int
    tiles_by_split: dict[str, dict[str, int]]
    label_fraction: float
    train_tiles_hidden: int
    left_out: list[str]
    tissue_left_out: TissueLeftOut
    sets: dict[str, SetFacts]
    classes_without_train_tiles: list[str]
    classes_without_held_out_tiles: dict[str, list[str]]


def run(work: Work) -> None:
    work.write_metrics({**cut_slides(work)})


def cut_slides(work: Work) -> TileMetrics:
    """Tile every slide of the manifest, take up every set, and publish the store; what is measured of it.

    Raises
    ------
    ManifestFaults
        with all faults of the manifests.
    HistoloomError
        when more than `max_bad_slides` slides, or `max_bad_tiles` pictures of sets, can't be used.
    """
    config = work.params.tile
    manifest = read_manifest(config)
    splits = study_splits(manifest, config, work.params.seed)
    few = few_groups(splits, config.split)
    for split in empty_splits(splits, config.split):
        console.print(f"tile: no group is in {split}" + (f": {few}" if few else ""), markup=False)
    visible = visible_fractions(manifest, config, splits, work.params.seed)
    parts = _set_jobs(manifest, splits, visible, work)
    with work.pool(len(manifest.slides) + len(parts)) as call:
        notes = _check_annotations(manifest, config, call)
        if config.summarise:
            slides = summarised(manifest.slides, config.summarise, work.parts.parent / "summaries")
            manifest = replace(manifest, slides=slides)
        results = cut_largest_first(_jobs(manifest, splits, visible, work), call) if manifest.slides else []
        of_sets = call(make_set_part, parts, "tile, sets") if parts else []
    _write_slides(results, of_sets, work)
    _refuse_bad(results, of_sets, work)
    _publish(results, of_sets, work)
    metrics = _metrics(results, of_sets, notes, work, splits)
    good = {result.entry.slide_id: result.facts for result in results if result.facts is not None}
    for remark in remarks(good):
        console.print(f"tile: {remark}", markup=False)
    for remark in remarks_on_sets(metrics["sets"]):
        console.print(f"tile: {remark}", markup=False)
    made, new = (sum(result.made for result in of) for of in (results, of_sets))
    said = [f"{made} slide(s) cut, {len(good) - made} taken as they were"] if results else []
    said += [f"{new} part(s) of sets made, {len(of_sets) - new} taken as they were"] if of_sets else []
    console.print(f"tile: {'; '.join(said)}; {metrics['tiles']} tiles")
    return metrics


def _set_jobs(
    manifest: Manifest, splits: dict[str, str], visible: dict[str, dict[str, float]], work: Work
) -> list[SetJob]:
    if not manifest.sets:
        return []
    hashes = Hashes(work.study.hashes)
    planned = Planned(
        work.params.tile, splits, visible, hashes.of_all, work.parts.resolve(), work.code, work.params.seed
    )
    jobs = [job for table in manifest.sets for job in set_jobs(table, planned)]
    hashes.save(all_asked=False)
    return jobs


def _check_annotations(manifest: Manifest, config: Tile, call: Pool) -> list[str]:
    """Say what of polygons and spots is left out, and refuse their faults before any slide is cut; the lines that were said."""
    if "polygons" not in (config.labels.source, config.masks.source) and manifest.spots is None:
        return []
    items = [(entry, config, _spots_of(entry, manifest)) for entry in manifest.slides]
    found = [each for of_slide in call(check_slide_annotations, items, "tile, annotations") for each in of_slide]
    said = lines_of(notes_among(found))
    for line in said:
        console.print(f"note: {line}", markup=False)
    refuse_faults(found)
    return said


def _spots_of(entry: SlideEntry, manifest: Manifest) -> pd.DataFrame | None:
    spots = manifest.spots
    return None if spots is None else spots[spots["slide_id"] == entry.slide_id].reset_index(drop=True)


def _jobs(
    manifest: Manifest, splits: dict[str, str], visible: dict[str, dict[str, float]], work: Work
) -> list[SlideJob]:
    config, seed, parts, code = work.params.tile, work.params.seed, work.parts.resolve(), work.code
    jobs, repair = [], _repair(work)
    for entry in manifest.slides:
        own, spots = {group: splits[group] for group in split_groups(entry, config)}, _spots_of(entry, manifest)
        jobs.append(SlideJob(entry, config, own, spots, parts, code, visible[entry.slide_id], seed, repair))
    return jobs


def cut_largest_first(jobs: Sequence[SlideJob], call: Callable[..., list[SlideResult]]) -> list[SlideResult]:
    """Cut every slide, so that no core is left waiting for a large one at the end; what became of each, in the jobs' order."""
    order = sorted(range(len(jobs)), key=lambda number: -bytes_of_slide(jobs[number].entry.path))
    done = dict(zip(order, call(cut_slide, [jobs[number] for number in order], "tile")))
    return [done[number] for number in range(len(jobs))]


def _repair(work: Work) -> Any:
    """What makes pen anew; None where tile.repair is off, so that its code is then no part of the stage's."""
    config = work.params.tile
    return registered("repair", "model")(config.repair, config.mpp, work.params.seed) if config.repair.is_on else None


def _refuse_bad(results: list[SlideResult], of_sets: list[SetResult], work: Work) -> None:
    """Refuse more bad slides, and more bad pictures of sets, than params allow."""
    config = work.params.tile
    bad = [(result.entry.row, result.reason) for result in results if result.reason is not None]
    good = sum(result.facts is not None for result in results)
    if hidden := len(results) - good - len(bad):
        console.print(f"tile: {hidden} slide(s) left out, whose labels tile.labels.fraction hides")
    left = good or any(part.facts["tiles"] for part in of_sets)
    said = lines_of([Note(config.stated_in, reason, row) for row, reason in bad])
    for line in said:
        console.print(f"quarantined: {line}", markup=False)
    if len(bad) > config.max_bad_slides or (bad and not left):
        raise HistoloomError(
            f"{len(bad)} of {len(results)} slides can't be used, and tile.max_bad_slides is {config.max_bad_slides}:\n"
            + "\n".join(f"  - {line}" for line in said)
            + "\nMend or remove them, or raise tile.max_bad_slides. The good slides' tiles are kept."
        )
    if refusal := check_bad(of_sets, config.max_bad_tiles if left else 0):
        raise HistoloomError(refusal)
    if not left:
        raise HistoloomError(
            "No tile is left: tile.labels.fraction hides the labels of all, or none has one. Raise it, draw slides or patients, or "
            "set tile.labels.unlabelled: keep."
        )


_SLIDE_COLUMNS = (
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
    "tissue_fraction",
    "padding_fraction",
    "pen_fraction",
    "with_artefacts",
    "in_gaps",
    "out_of_focus",
    "tissue_beyond_grid",
    "reason",
)


def _write_slides(results: list[SlideResult], of_sets: list[SetResult], work: Work) -> None:
    """Write slides.csv: a row for each slide that was cut or can't be used, and one for each set."""
    reports = work.reports
    reports.mkdir(parents=True, exist_ok=True)
    with (reports / "slides.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _SLIDE_COLUMNS, extrasaction="ignore", restval="")
        writer.writeheader()
        for result in results:
            if result.facts is not None:
                writer.writerow({"slide_id": result.entry.slide_id, **result.facts})
            elif result.reason is not None:
                writer.writerow({"slide_id": result.entry.slide_id, "reason": result.reason})
        stated = {each.id: each.mpp for each in work.params.tile.sets}
        for name, facts in summed(of_sets).items():
            writer.writerow({"slide_id": name, "mpp_level0": stated[name], **set_columns(facts)})


def _publish(results: list[SlideResult], of_sets: list[SetResult], work: Work) -> None:
    good = [result for result in results if result.facts is not None]
    numbers: dict[str, int] = {}

    def write(staged: Path) -> None:
        for result in good:
            link_tree(work.parts / result.part, staged / result.entry.slide_id)
        for part in of_sets:
            if part.facts["tiles"]:
                number = numbers[part.name] = numbers.get(part.name, -1) + 1
                link_tree(work.parts / part.part, staged / f"{part.name}{PART_MARK}{number:04d}")
        used = [r.entry.predicted for r in good if r.facts is not None and r.facts["predicted"]]
        saw = [lineage_of_prediction(path) for path in used if path is not None]
        repair = _repair(work)
        if repair is not None and any(r.facts["repaired"] for r in good if r.facts is not None):
            saw.append(repair.lineage)
        if saw:
            reduce(or_, saw).save(staged)

    work.promote(write, work.study.tiles)
    work.keep_parts([*(result.part for result in good), *(part.part for part in of_sets)])


def _metrics(
    results: list[SlideResult], of_sets: list[SetResult], notes: list[str], work: Work, splits: dict[str, str]
) -> TileMetrics:
    good, config = [result.facts for result in results if result.facts is not None], work.params.tile
    rows = work.study.real().rows()
    counts = rows.groupby(["split", rows["label"].fillna("unlabelled")]).size()
    by_split = {split: {label: int(n) for (s, label), n in counts.items() if s == split} for split in SPLITS}
    return {
        "slides": len(good) + _slides_of_sets(rows, results, work),
        "quarantined": sum(result.reason is not None for result in results),
        "tiles": len(rows),
        "patients": int(rows["patient_id"].nunique()),
        "tiles_by_split": by_split,
        "label_fraction": config.labels.fraction,
        "train_tiles_hidden": sum(result.hidden.get("train", 0) for result in results)
        + sum(part.facts["hidden"].get("train", 0) for part in of_sets),
        "left_out": notes,
        "tissue_left_out": totals(good),
        "sets": summed(of_sets),
        "classes_without_train_tiles": _vanished(by_split, config),
        "classes_without_held_out_tiles": _not_held_out(rows, splits, config),
    }


def _slides_of_sets(rows: pd.DataFrame, results: list[SlideResult], work: Work) -> int:
    """Slides that tiles of sets state; a tile that is a group of its own states none."""
    lone = tuple(f"{each.id}{PART_MARK}" for each in work.params.tile.sets if each.group_by == "tile")
    stated = rows.loc[~rows["part"].str.startswith(lone), "slide_id"] if lone else rows["slide_id"]
    return len({*stated} - {result.entry.slide_id for result in results})


def _vanished(tiles: dict[str, dict[str, int]], config: Tile) -> list[str]:
    """The classes of which train has no tile; it is said, as nothing can be learned or made of them."""
    vanished = [name for name in config.labels.named if name not in tiles.get("train", {})]
    for name in vanished:
        there = [f"{tiles[split][name]} in {split}" for split in ("val", "test") if name in tiles.get(split, {})]
        hint = ", or raise tile.labels.fraction" if config.labels.fraction < 1 else ""
        console.print(
            f"tile: no train tile of '{name}' ({', '.join(there) or 'nor in val or test'}): it can't be learned or made. "
            f"Give train a patient of it, look at its spelling and tile.labels{hint}.",
            markup=False,
        )
    return vanished


def _not_held_out(rows: pd.DataFrame, splits: dict[str, str], config: Tile) -> dict[str, list[str]]:
    """Held-out split to the classes that train shows and it does not; it is said, as nothing is measured of them there."""
    counts, held = class_counts(rows, config.labels.named), {*splits.values()}
    for split in sorted(held - {*rows["split"]}):
        groups = listed(group for group, of in splits.items() if of == split)
        console.print(f"tile: no tile is in {split}: none of its groups gave one ({groups})", markup=False)
    for line in lacking_in_words(counts, held, "tile", config.split.group):
        console.print(f"tile: {line}", markup=False)
    return lacking(counts, held)
