"""Write the augmented dataset behind the leak gate, with its card: real train with accepted synthetic; val and test real only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypedDict

import pandas as pd

import histoloom
from histoloom.config import Emit
from histoloom.config.package import read_json
from histoloom.data.codes import code, read_salt
from histoloom.data.lineage import Lineage, records_of
from histoloom.data.lineage_match import grid_of, recognise
from histoloom.data.rows import leaving_rows
from histoloom.data.schema import REFUSED, SPLITS, VERDICT_COLUMNS
from histoloom.data.study_folder import Study
from histoloom.emit.card import CardFacts, write_card
from histoloom.emit.coco import MaskedTile, write_coco
from histoloom.emit.dataset_classes import Source, classes_of, labelled
from histoloom.emit.formats import WRITERS, Item, write_classes
from histoloom.emit.leak_gate import check_ancestors
from histoloom.emit.redaction import Names
from histoloom.errors import HistoloomError
from histoloom.progress import console, track
from histoloom.studies.stage_work import Work

Counts = dict[str, dict[str, dict[str, int]]]
"""Split to source to label to tiles."""
_READ_TILES = 256
_REAL = ("tile_id", "source", "label", "masked", "split", "split_group", "slide_id", "patient_id")
_SYNTHETIC = (
    "tile_id", "source", "label", "masked", "purpose", "request", "generator_sha256", "ancestors", *VERDICT_COLUMNS
)  # fmt: skip
"""Columns of all tiles that are held at once; the others are read part by part, as tiles are written."""


def run(work: Work) -> None:
    def write(folder: Path) -> None:
        work.write_metrics({**emit_dataset(work.study, folder, read_salt(work.study.salt))})

    work.promote(write, work.study.dataset)


class EmitMetrics(TypedDict):
    """What the stage reports.

    counts : split to source to label to tiles. unlabelled_left_out : split to source to tiles.
    unknown_ancestors : what models saw that nobody here knows, let through by params.
    """

    counts: Counts
    classes: list[str]
    unlabelled_left_out: dict[str, dict[str, int]]
    synthetic_fraction_of_train: float
    unknown_ancestors: list[str]


def emit_dataset(study: Study, folder: Path, salt: bytes) -> EmitMetrics:
    """Write the dataset to a folder.

    Raises
    ------
    HistoloomError
        when a synthetic tile's ancestors aren't all of the train split, or synthetic tiles are to leave alone and there are none, or
        some are variations of real ones.
    """
    params, config, grid = study.params, study.params.emit, grid_of(study.params.tile.split)
    real, stores = study.real(), study.synthetic_stores()
    real_rows = real.rows(_REAL, optional=["dataset"])
    every = [
        (store, rows[rows["purpose"] == "augment"])
        for store in stores
        for rows in [store.rows(_SYNTHETIC, optional=["input_ref", "realism_score"])]
    ]
    passed = [Source(store, leaving_rows(rows).assign(split="train")) for store, rows in every]
    lineage = {generator: record for store in stores for generator, record in records_of(store.folder).items()}
    accepted, allowed = _joined([s.rows for s in passed]), config.allow_unknown_ancestors
    unknown = check_ancestors(accepted, lineage, real_rows, allow_unknown=allowed, salt=salt, grid=grid)
    sources = {split: [Source(real, real_rows[real_rows["split"] == split])] for split in SPLITS}
    if "real" not in config.include:
        _check_alone(accepted)
        sources = {"train": []}
    if "synthetic" in config.include:
        sources["train"] += passed
    classes = classes_of(params.tile.labels, sources)
    sources, unlabelled = labelled(params.tile.labels, sources)
    _write_formats(folder, sources, classes, config, salt)
    if "coco" in config.formats:
        known = _write_coco(folder / "coco", sources, params.tile.masks.classes, config, salt)
        sources = known if {*config.formats} == {"coco"} else sources  # the card counts the tiles that leave
    counts = _counts(sources)
    asked_for = _joined([rows for _, rows in every])
    facts = CardFacts(
        name=config.name,
        licence=config.licence,
        version=histoloom.__version__,
        formats=config.formats,
        tile_px=params.tile.tile_px,
        mpp=params.tile.mpp,
        classes=classes,
        labelled=params.tile.labels.given,
        counts=counts,
        unlabelled=unlabelled,
        generators={n: record | {"own": _own_groups(record, real_rows, salt, grid)} for n, record in lineage.items()},
        unknown=_outside(unknown, lineage.values(), salt),
        refused=_refused(asked_for),
        not_told=_not_told(accepted),
        synthetic=len(asked_for),
        accepted=len(accepted),
        patients=int(real_rows["patient_id"].nunique()),
        captions=config.captions,
        alone="real" not in config.include,
        audit=_audit(study) if "real" not in config.include else {},
    )
    (folder / "README.md").write_text(write_card(facts), encoding="utf-8")
    return {
        "counts": counts,
        "classes": list(classes),
        "unlabelled_left_out": unlabelled,
        "synthetic_fraction_of_train": _synthetic_fraction(counts.get("train", {})),
        "unknown_ancestors": unknown,
    }


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Rows of all stores; none where the study only predicts, and has no store of synthetic tiles."""
    return pd.concat(parts) if parts else pd.DataFrame(columns=[*_SYNTHETIC])


def _refused(rows: pd.DataFrame) -> dict[str, dict[str, int]]:
    """The labels of which too little passed the filters, with how many there were and how many passed."""
    out = rows[rows["reject_reasons"].map(lambda reasons: REFUSED in reasons).astype(bool)]
    return {
        str(label): {"synthetic": len(part), "passed": int((part["reject_reasons"].str.len() == 1).sum())}
        for label, part in out.groupby(out["label"].fillna("unlabelled"))
    }


def _not_told(accepted: pd.DataFrame) -> dict[str, int]:
    """Label to its tiles that the filter `realism` let pass for want of tiles to compare with."""
    if "realism_score" not in accepted:
        return {}
    unknown = accepted[accepted["realism_score"].isna()]
    return {str(label): int(n) for label, n in unknown["label"].fillna("unlabelled").value_counts(sort=False).items()}


def _check_alone(synthetic: pd.DataFrame) -> None:
    """Refuse to let leave alone what shows a real tile."""
    if synthetic.empty:
        raise HistoloomError(
            "emit.include is [synthetic], and no synthetic tile passed the filters: nothing would leave."
        )
    varied = synthetic[synthetic["input_ref"].notna()] if "input_ref" in synthetic else synthetic.head(0)
    if len(varied):
        raise HistoloomError(
            f"emit.include leaves real tiles out, and {len(varied)} synthetic tiles were begun from real ones (first: "
            f"{varied['tile_id'].iloc[0]}). Take their requests out of plan.requests ({', '.join(sorted(varied['request'].unique()))}), or "
            "include real."
        )


def _audit(study: Study) -> dict:
    """What `evaluate` found that the tiles tell of the real ones."""
    path = study.reports("evaluate") / "metrics.json"
    found = read_json(path).get("audit") if path.is_file() else None
    if found is None:
        raise HistoloomError("Synthetic tiles are to leave alone, and they were not audited. Run: dvc repro evaluate")
    return found


def _write_formats(
    folder: Path, sources: dict[str, list[Source]], classes: tuple[str, ...], config: Emit, salt: bytes
) -> None:
    for format_name in [name for name in config.formats if name in WRITERS]:
        for split, parts in sources.items():
            if total := sum(len(part.rows) for part in parts):
                items = track(_items(parts, config, salt), f"emit {format_name} {split}", total)
                WRITERS[format_name](folder / format_name, split, items, classes, config.shard_tiles)
    write_classes(folder, classes)


def _write_coco(
    folder: Path, sources: dict[str, list[Source]], classes: tuple[str, ...], config: Emit, salt: bytes
) -> dict[str, list[Source]]:
    """Write the tiles whose mask is known, and return them. What a learner predicted is no mask of a real tile.

    Raises
    ------
    HistoloomError
        when no tile has one.
    """
    known = {
        split: [Source(part.store, part.rows[part.rows["masked"].astype(bool)]) for part in parts]
        for split, parts in sources.items()
    }
    if not any(len(part.rows) for parts in known.values() for part in parts):
        raise HistoloomError(
            "emit.formats names coco, and no tile has a mask. State masks (tile.masks), or take coco out."
        )
    for split, parts in known.items():
        all_of_them = sum(len(part.rows) for part in sources[split])
        total = sum(len(part.rows) for part in parts)
        if total < all_of_them:
            console.print(
                f"emit coco {split}: {all_of_them - total} of {all_of_them} tiles are left out: their mask isn't known"
            )
        if total:
            write_coco(
                folder,
                split,
                track(_masked_tiles(parts, config, salt), f"emit coco {split}", total),
                classes,
                config.licence,
            )
    return known


def _masked_tiles(sources: list[Source], config: Emit, salt: bytes) -> Iterator[MaskedTile]:
    for source in sources:
        for rows in _batches(source):
            part = rows["part"].iloc[0]
            several = source.store.has("instance", part)
            objects = source.store.read(rows, "instance") if several else [None] * len(rows)
            arrays = zip(source.store.read(rows), source.store.read(rows, "mask"), objects)
            for row, (image, mask, instances) in zip(rows.to_dict("records"), arrays):
                yield MaskedTile(_public(row, config, salt), image, mask, instances)


def _own_groups(record: dict, rows: pd.DataFrame, salt: bytes, grid: str) -> int:
    """How many of a generator's groups are this study's, under whatever name."""
    return len(set(record["groups"]) - set(recognise(record, rows, salt, grid).unknown))


def _outside(unknown: list[str], records: Iterable[dict], salt: bytes) -> list[str]:
    """Unknown ancestors as the card names them: another study's groups, which may be patients, as codes; of a folder, only that
    it is one."""
    groups = {group for record in records for group in record["groups"]}
    public = tuple(dataset for record in records for dataset in record.get("public", ()))
    names, sources = ([u for u in unknown if (u in groups) == named] for named in (True, False))
    told = Names("", salt).outside(Lineage(tuple(names), (), tuple(sources), public))
    return [*told.groups, *told.unknown]


def _counts(sources: dict[str, list[Source]]) -> Counts:
    out: Counts = {}
    for split, parts in sources.items():
        for part in parts:
            for (source, label), group in part.rows.groupby(["source", "label"]):
                by_label = out.setdefault(split, {}).setdefault(source, {})
                by_label[label] = by_label.get(label, 0) + len(group)
    return out


def _synthetic_fraction(train: dict[str, dict[str, int]]) -> float:
    count = {source: sum(by_label.values()) for source, by_label in train.items()}
    return count.get("synthetic", 0) / max(sum(count.values()), 1)


def _items(sources: list[Source], config: Emit, salt: bytes) -> Iterator[Item]:
    for source in sources:
        for rows in _batches(source):
            for row, image in zip(rows.to_dict("records"), source.store.read(rows)):
                yield _public(row, config, salt), image


def _batches(source: Source) -> Iterator[pd.DataFrame]:
    """The rows with all columns, some of one part at once."""
    for of_part in source.store.whole(source.rows):
        for start in range(0, len(of_part), _READ_TILES):
            rows = of_part.iloc[start : start + _READ_TILES]
            yield rows.assign(caption=rows["caption"].fillna(""))


def _public(row: dict, config: Emit, salt: bytes) -> dict:
    """The columns that leave, by allow-list; keys and codes hide slides, patients and places.

    A column has one type in all splits and formats, since readers tell it by the first rows that they see: what real tiles
    don't have is '' or 0, and `guidance` is JSON.
    """
    synthetic = row["source"] == "synthetic"
    key = hashlib.blake2b(f"{row['source']}/{row['tile_id']}".encode(), key=salt[:64], digest_size=8).hexdigest()
    out = {
        "key": f"{'s' if synthetic else 'r'}{key}",
        "label": row["label"],
        "source": row["source"],
        "split": row["split"],
        "mpp": float(row["mpp"]),
        "patient_code": "" if synthetic else code("p", row["patient_id"], salt),
        "slide_code": "" if synthetic else code("s", row["slide_id"], salt),
        "generator_sha256": row["generator_sha256"] if synthetic else "",
        "seed": str(row["seed"]) if synthetic else "",
        "scheduler": row["scheduler"] if synthetic else "",
        "steps": int(row["steps"]) if synthetic else 0,
        "precision": row["precision"] if synthetic else "",
        "window_layout": (row["window_layout"] or "") if synthetic else "",
        "guidance": json.dumps(list(row["guidance"])) if synthetic else "",
    }
    return out | ({"caption": row["caption"]} if config.captions else {})
