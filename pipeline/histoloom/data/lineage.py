"""What a model saw: the groups and slides it was trained on, kept beside its weights.

A model that was loaded from elsewhere has ancestors that nobody here knows; that is written down too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from histoloom.config.package import packaged
from histoloom.data.commit import hash_tree, write_json
from histoloom.data.lineage_match import recognise
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError

FILE = "lineage.json"


@dataclass(frozen=True)
class Lineage:
    """What a model was trained on.

    groups, slides : the split_groups and the slide ids.
    unknown : sources of unknown ancestry.
    public : data sets whose names stand clear, as `DATASET:NAME`.
    """

    groups: tuple[str, ...] = ()
    slides: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    public: tuple[str, ...] = ()

    @classmethod
    def trained_on(cls, rows: pd.DataFrame, grid: str = "") -> Lineage:
        """The lineage of a model trained on these rows, of a study whose slides are divided by this grid (lineage_match.grid_of)."""
        groups = {f"{group}@{grid}" if grid else group for group in rows["split_group"]}
        return cls(tuple(sorted(groups)), tuple(sorted(set(rows["slide_id"]))))

    def __or__(self, other: Lineage) -> Lineage:
        return Lineage(*(tuple(sorted({*getattr(self, f.name), *getattr(other, f.name)})) for f in fields(self)))

    @property
    def record(self) -> dict[str, Any]:
        """As it is written: `public` only where it names any."""
        record = asdict(self)
        return record if self.public else {name: value for name, value in record.items() if name != "public"}

    def save(self, folder: Path) -> None:
        write_json(folder / FILE, self.record)


def read_lineage(source: Path | str) -> Lineage:
    """A model's lineage; of a folder without a record, or a hub id, it is unknown.

    Raises
    ------
    HistoloomError
        when the record can't be read: what the model saw is then not told, rather than nothing.
    """
    path = Path(source) / FILE
    return lineage_in(_read(path), path) if path.is_file() else Lineage(unknown=(str(source),))


def lineage_of_masks(store: TileStore) -> Lineage:
    """What the learners saw that predicted masks in a store of real tiles; nothing where none did."""
    return read_lineage(store.folder) if (store.folder / FILE).is_file() else Lineage()


def lineage_of(source: str, part: str, revision: str | None = None) -> Lineage:
    """The lineage of a pretrained model's part, as params name it; without a record it is unknown, under that name."""
    folder = Path(packaged(source, part, revision))
    place = folder.parent if part.startswith("encoders/") else folder  # encoders share one record
    return read_lineage(place) if (place / FILE).is_file() else Lineage(unknown=(source,))


def records_of(folder: Path) -> dict[str, dict]:
    """What the generators of a folder of synthetic tiles saw, by their sha256; none where it has no record.

    Raises
    ------
    HistoloomError
        when the record can't be read.
    """
    path = folder / FILE
    records = _read(path) if path.is_file() else {}
    if not isinstance(records, dict):
        raise _damaged(path)
    return {generator: lineage_in(record, path).record for generator, record in records.items()}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise _damaged(path) from error


def lineage_in(record: Any, path: Path) -> Lineage:
    """The lineage that a record states, which a file holds.

    Raises
    ------
    HistoloomError
        when it is none.
    """
    record = {"public": []} | record if isinstance(record, dict) else {}
    stated = [record.get(f.name) for f in fields(Lineage)]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in stated):
        raise _damaged(path)
    return Lineage(*map(tuple, stated))


def _damaged(path: Path) -> HistoloomError:
    return HistoloomError(
        f"{path} is no lineage record: it must state groups, slides and unknown, each a list of names. Put back the file that "
        "came with the model, or make it anew; without what it saw, no leak can be told."
    )


def check_generators(
    synthetic: Iterable[TileStore], rows: pd.DataFrame, salt: bytes | None = None, grid: str = ""
) -> None:
    """Refuse to measure with held-out tiles what was taught by them.

    Parameters
    ----------
    synthetic : stores of synthetic tiles, with the record of what their generators saw.
    rows : the real store's, of all splits.
    salt, grid : the study's, to know its own codes and regions by.

    Raises
    ------
    HistoloomError
        when a generator saw a group of val or test, or a slide of theirs, under whatever name; or left no record.
    """
    for store in synthetic:
        records = records_of(store.folder)
        if missing := sorted(set(store.rows(["generator_sha256"])["generator_sha256"]) - set(records)):
            lost = ", ".join(generator[:12] for generator in missing)
            raise HistoloomError(
                f"Generator {lost} of {store.folder} left no record of what it saw. Sample again with `dvc repro`."
            )
        for generator, record in records.items():
            check_unseen(f"Generator {generator[:12]} of {store.folder}", record, rows, salt, grid)


def check_unseen(who: str, record: dict, rows: pd.DataFrame, salt: bytes | None = None, grid: str = "") -> None:
    """`check_generators` of one model by its record; `who` is its name in the error."""
    if wrong := recognise(record, rows, salt, grid).complaint(who):
        raise HistoloomError(f"{wrong} Held-out tiles can't measure what was taught by them.")


def model_sha256(folder: Path | str) -> str:
    """A model's identity: sha256 over its folder."""
    return hash_tree(Path(folder))
