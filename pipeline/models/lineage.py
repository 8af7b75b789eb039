"""What a model saw: the groups and slides it was trained on, kept beside its weights.

A model that was loaded from elsewhere has ancestors that nobody here knows; that is written down too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pandas as pd

from pipeline.data.ancestry import recognise
from pipeline.data.commit import hash_tree, write_json
from pipeline.errors import HistoloomError

FILE = "lineage.json"


@dataclass(frozen=True)
class Lineage:
    """groups : split_groups seen in training; slides : slide ids seen; unknown : sources of unknown ancestry; public : data
    sets whose names stand clear, as `DATASET:NAME`.
    """

    groups: tuple[str, ...] = ()
    slides: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    public: tuple[str, ...] = ()

    def __or__(self, other: Lineage) -> Lineage:
        return Lineage(*(tuple(sorted({*getattr(self, f.name), *getattr(other, f.name)})) for f in fields(self)))

    @property
    def record(self) -> dict:
        record = asdict(self)
        return record if self.public else {name: value for name, value in record.items() if name != "public"}

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, self.record)


def seen(rows: pd.DataFrame) -> Lineage:
    """The lineage of a model trained on these rows."""
    return Lineage(tuple(sorted(set(rows["split_group"]))), tuple(sorted(set(rows["slide_id"]))))


def read_lineage(source: Path | str) -> Lineage:
    """A model's lineage; of a folder without a record, or a hub id, it is unknown."""
    path = Path(source) / FILE
    if not path.is_file():
        return Lineage(unknown=(str(source),))
    record = json.loads(path.read_text(encoding="utf-8"))
    return Lineage(*(tuple(record.get(f.name, ())) for f in fields(Lineage)))


def check_generators(made: Iterable[Path], rows: pd.DataFrame, salt: bytes | None = None) -> None:
    """Refuse to measure with held-out tiles what was taught by them.

    Parameters
    ----------
    made : folders of made tiles, with the record of what their generators saw, where there is one.
    rows : the real store's, of all splits.
    salt : the study's, to know its own codes by.

    Raises
    ------
    HistoloomError
        when a generator saw a group of val or test, or a slide of theirs, under whatever name.
    """
    for folder in made:
        path = folder / FILE
        records = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for generator, record in records.items():
            if wrong := recognise(record, rows, salt).complaint(f"Generator {generator[:12]} of {folder}"):
                raise HistoloomError(f"{wrong} Held-out tiles can't measure what was taught by them.")


def model_sha256(folder: Path | str) -> str:
    """A model's identity: sha256 over its folder."""
    return hash_tree(Path(folder))
