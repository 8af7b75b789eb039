"""All slides of a manifest to one tile store: splits first, then a task per slide, then the count of the bad ones."""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pipeline.config import Tile
from pipeline.data.commit import link_tree, write_json
from pipeline.data.manifest import Manifest, read_manifest
from pipeline.data.schema import SPLITS
from pipeline.data.splits import assign_splits
from pipeline.errors import Fault, HistoloomError, ManifestFaults
from pipeline.progress import console
from pipeline.slides.annotate import check_annotations
from pipeline.slides.describe import split_groups
from pipeline.slides.hiding import seen_shares
from pipeline.slides.left_out import remarks, totals
from pipeline.slides.summarise import summarised
from pipeline.slides.tiler import SlideJob, cut_slide


def study_splits(manifest: Manifest, config: Tile, seed: int) -> dict[str, str]:
    """Give every group of the manifest its split: as stated, else by hash.

    Raises
    ------
    ManifestFaults
        when params assign a group that isn't there.
    """
    groups = [group for entry in manifest.slides for group in split_groups(entry, config)]
    unknown = sorted(set(config.split.assign) - set(groups))
    if unknown:
        raise ManifestFaults(
            [
                Fault(
                    "params.yaml",
                    f"tile.split.assign names '{name}', which is no group.",
                    f"groups are {', '.join(sorted(set(groups))[:4])}, ...",
                )
                for name in unknown
            ]
        )
    stated = {group: entry.split for entry in manifest.slides if entry.split for group in split_groups(entry, config)}
    return assign_splits(groups, config.split.fractions, seed, {**stated, **config.split.assign})


def tile_study(
    config: Tile,
    seed: int,
    work,
    pool: Callable[[int], AbstractContextManager],
    output: Path | str = "data/tiles",
    reports: Path | str = "reports/tile",
    code: str = "",
) -> dict:
    """Tile every slide of the manifest and publish the store.

    Parameters
    ----------
    work : the stage's work folder; parts that it holds are not made again.
    pool : opens a pool of workers for a number of tasks.

    Returns
    -------
    The metrics, also written to `reports/metrics.json`.

    Raises
    ------
    ManifestFaults
        with all faults of the manifests.
    HistoloomError
        when more than `max_bad_slides` slides can't be used.
    """
    manifest = read_manifest(config)
    if faults := check_annotations(manifest, config):
        raise ManifestFaults(faults)
    if config.summarise:
        slides = summarised(manifest.slides, config.summarise, work.parts.parent / "summaries")
        manifest = replace(manifest, slides=slides)
    splits = study_splits(manifest, config, seed)
    shares = seen_shares(manifest, config, splits, seed)
    jobs = [
        _job(entry, manifest, config, splits, work.parts.resolve(), code, shares[entry.slide_id], seed)
        for entry in manifest.slides
    ]
    with pool(len(jobs)) as run:
        results = run(cut_slide, jobs, "tile")
    good = [r for r in results if "part" in r]
    bad = [r for r in results if "reason" in r]
    if unseen := len(results) - len(good) - len(bad):
        console.print(f"tile: {unseen} slide(s) left out, whose labels tile.labels.fraction hides")
    if not good and not bad:
        raise HistoloomError(
            "tile.labels.fraction hides the labels of every slide. Raise it, or draw slides or patients."
        )
    reports = Path(reports)
    _write_slides([r for r in results if "part" in r or "reason" in r], reports)
    for r in bad:
        console.print(f"quarantined: row {r['row']}, {r['reason']}", markup=False)
    if len(bad) > config.max_bad_slides or not good:
        raise HistoloomError(
            f"{len(bad)} of {len(results)} slides can't be used, and tile.max_bad_slides is {config.max_bad_slides}:\n"
            + "\n".join(f"  - {config.manifest}, row {r['row']}: {r['reason']}" for r in bad)
            + "\nMend or remove them, or raise tile.max_bad_slides. The good slides' tiles are kept."
        )
    _publish(good, work, Path(output))
    hidden = sum(r["hidden"].get("train", 0) for r in results if "hidden" in r)
    metrics = _metrics(good, bad, Path(output)) | {
        "label_fraction": config.labels.fraction,
        "train_tiles_hidden": hidden,
        "tissue_left_out": totals(good),
    }
    write_json(reports / "metrics.json", metrics)
    lost = [c for c in config.labels.classes if c not in metrics["tiles_by_split"].get("train", {})]
    if lost and config.labels.fraction < 1:
        console.print(f"tile: no train tile of {', '.join(lost)} is left; raise tile.labels.fraction to have some")
    for remark in remarks(good):
        console.print(f"tile: {remark}", markup=False)
    made = sum(r["made"] for r in good)
    console.print(f"tile: {made} slide(s) cut, {len(good) - made} taken as they were; {metrics['tiles']} tiles")
    return {**metrics, "slides_made": made}


def _job(entry, manifest: Manifest, config: Tile, splits: dict[str, str], parts: Path, code: str, shares, seed: int):
    spots = manifest.spots
    mine = None if spots is None else spots[spots["slide_id"] == entry.slide_id].reset_index(drop=True)
    own = {group: splits[group] for group in split_groups(entry, config)}
    return SlideJob(entry, config, own, mine, parts, code, shares, seed)


def _publish(good: list[dict], work, output: Path) -> None:
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
