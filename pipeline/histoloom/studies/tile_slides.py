"""Cut woven slides into a second tile store, which is filtered and emitted as sampled tiles are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from histoloom.config import Tile
from histoloom.data.commit import RECORD, commit_part
from histoloom.data.schema import SYNTHETIC_ROW, write_rows
from histoloom.data.slide_entry import SlideEntry
from histoloom.progress import console
from histoloom.slides.job import SlideJob
from histoloom.slides.slide import BadSlide
from histoloom.slides.tiler import write_part
from histoloom.slides.woven import CONDITION, FACTS, POLYGONS, SLIDE
from histoloom.studies.stage_work import Work


def run(work: Work) -> None:
    """Cut every woven slide and publish the store, which is empty where there is none."""
    config, woven = work.params.tile, work.study.woven
    names = sorted(p.name for p in woven.iterdir() if (p / RECORD).exists())
    jobs = [WovenJob(name, woven.resolve(), config, work.parts.resolve()) for name in names]
    with work.pool(len(jobs)) as call:
        infos = call(cut_woven, jobs, "tile_slides")
    lineage = json.loads((woven / "lineage.json").read_text(encoding="utf-8"))
    empty = {name: info["reason"] for name, info in zip(names, infos) if "reason" in info}
    for reason in empty.values():
        console.print(f"a woven slide gives no tiles: {reason}")
    work.promote_parts(
        [job.part for job in jobs if job.name not in empty], work.study.woven_tiles, {"lineage.json": lineage}
    )
    metrics = {"slides": len(names), "tiles": sum(info["tiles"] for info in infos), "without_tiles": empty}
    work.write_metrics(metrics)


@dataclass(frozen=True)
class WovenJob:
    """One woven slide's part; plain data."""

    name: str
    woven: Path
    config: Tile
    parts: Path

    @property
    def part(self) -> str:
        return f"slide-{self.name}"

    @property
    def folder(self) -> Path:
        return self.woven / self.name


def cut_woven(job: WovenJob) -> dict[str, Any]:
    """Make a woven slide's part, unless it is there; `reason`, where no tile can be cut from it."""
    try:
        return commit_part(job.parts, job.part, lambda folder: _write(job, folder))["info"]
    except BadSlide as error:
        return {"tiles": 0, "reason": str(error)}


def _write(job: WovenJob, folder: Path) -> dict[str, Any]:
    facts = json.loads((job.folder / FACTS).read_text(encoding="utf-8"))
    mask = job.folder / CONDITION
    entry = SlideEntry(
        slide_id=job.name,
        path=job.folder / SLIDE,
        patient_id=job.name,
        row=0,
        mpp=facts["mpp"],
        label=facts["label"],
        annotations=job.folder / POLYGONS if mask.exists() else None,
        mask=mask if mask.exists() else None,
    )
    config = _config(job.config, masked=mask.exists())
    info = write_part(SlideJob(entry, config, {job.name: "train"}, None, folder, "", woven=True), folder)
    rows = _synthetic(pd.read_parquet(folder / "rows.parquet"), job, config, facts)
    write_rows(rows.astype({"seed": "uint64"}), folder / "rows.parquet", SYNTHETIC_ROW)
    return {**info}


def _synthetic(rows: pd.DataFrame, job: WovenJob, config: Tile, facts: dict[str, Any]) -> pd.DataFrame:
    """The rows of a woven slide's tiles, with what the slide was made under."""
    middles = rows[["y_level0_px", "x_level0_px"]].to_numpy() + config.tile_px / 2
    given = pd.DataFrame([_given(facts, y, x) for y, x in middles], index=rows.index)
    # a field says more of a place than its slide does, and a mask more than both
    first, second = (given, rows) if config.labels.source == "slide" else (rows, given)
    return rows.assign(
        tile_id=[f"woven-{name}" for name in rows["tile_id"]],
        source="synthetic",
        patient_id="",
        split_group="",
        split="train" if facts["purpose"] == "augment" else "test",
        label=first["label"].where(first["label"].notna(), second["label"]),
        caption=given["caption"].where(given["caption"].notna(), rows["caption"]),
        rna=given["rna"],
        genotype=given["genotype"],
        cohort=given["cohort"],
        number=given["number"],
        seed=facts["seed"],
        **facts["sampling"] | {"guidance": [facts["sampling"]["guidance"]] * len(rows)},
        generator_sha256=facts["generator_sha256"],
        condition_ref=job.name,
        program="",
        input_ref=None,
        like_ref=None,
        request=job.name,
        purpose=facts["purpose"],
        ancestors=[facts["ancestors"]] * len(rows),
    )


def _given(facts: dict[str, Any], y_px: float, x_px: float) -> dict[str, Any]:
    """The conditions of the field's point nearest to a place."""
    points = facts["points"]
    row = min(int(y_px * len(points) / facts["height_px"]), len(points) - 1)
    return points[row][min(int(x_px * len(points[row]) / facts["width_px"]), len(points[row]) - 1)]


def _config(config: Tile, *, masked: bool) -> Tile:
    """How a woven slide is cut: as real ones are, without overlap, its stain as it is, labels and masks from its own."""
    labels = "slide"
    if masked and config.labels.source in ("polygons", "raster"):
        labels = "raster" if config.labels.classes == config.masks.classes else "polygons"
    changed = {
        "stride_px": config.tile_px,
        "stain": "none",
        "tissue": config.tissue.model_copy(update={"leave_out": ()}),  # nobody scanned it, or wrote on it
        "more_mpp": (),
        "caption": "H&E, {composition}",  # real tiles' may quote columns that no woven slide has
        "split": config.split.model_copy(update={"group": "patient"}),
        "labels": config.labels.model_copy(update={"source": labels, "unlabelled": "keep"}),
        "masks": config.masks.model_copy(update={"source": "raster" if masked else "none"}),
    }
    return config.model_copy(update=changed)
