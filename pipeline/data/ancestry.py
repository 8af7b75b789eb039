"""What a model's lineage record names of this study, under whatever name it does so.

A record names groups and slides as the study that trained it did; a package names them by salted codes, or, of a public
set, as `DATASET:NAME`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from pipeline.data.codes import code

_REGION = re.compile(r"/r\d+c\d+$", re.IGNORECASE)
_CODE = re.compile(r"(?:.+:)?([gs]-[0-9a-f]{12}(?:/r\d+c\d+)?)")
_KINDS = ("g", "s")  # of groups and of slides


@dataclass(frozen=True)
class Recognised:
    """held_out : groups and slides of val and test that the model saw.
    unstated : slides of val and test that state no data set, to a name of the record that may be theirs.
    unknown : what the model saw that is none of this study's, sources of unknown ancestry among it.
    """

    held_out: tuple[str, ...]
    unstated: dict[str, str]
    unknown: tuple[str, ...]

    def complaint(self, who: str) -> str | None:
        """Why `who` may not be used where val and test are; None if it may."""
        if self.held_out:
            return (
                f"{who} was trained on held-out groups or slides: {', '.join(self.held_out[:5])}. "
                "Train it on the train split alone, or state split: train for them."
            )
        if self.unstated:
            slides, name = ", ".join([*self.unstated][:5]), next(iter(self.unstated.values()))
            return (
                f"{who} saw '{name}', and a held-out slide, or its patient, has the same name: {slides}. Fill in the column "
                f"`dataset` of slides.csv for it: {name.partition(':')[0]} if the slide is of that set, another word (such as own) "
                "if it isn't."
            )
        return None


def recognise(record: dict, rows: pd.DataFrame, salt: bytes | None = None) -> Recognised:
    """Match a lineage record with a study's rows.

    Names as they are and codes of the study's own salt are exact: a group is a group, and a slide counts only where it was
    seen under no group that is used here. A public name is matched with groups, patients and slides whatever their case,
    and its region is ignored, for another study divides a slide otherwise.

    Parameters
    ----------
    record : {groups, slides, unknown}.
    rows : of the real store, of all splits, with `split_group`, `slide_id`, `split`, and, where there are, `patient_id` and
        `dataset`.
    salt : the study's, to know its own codes by.
    """
    own = _distinct(rows)
    names = _names_of_codes(own, salt)
    groups, slides = ({_decoded(name, names) for name in record[field]} for field in ("groups", "slides"))
    mine, asked = set(own["split_group"]), own[own["split"].isin(("val", "test"))]
    of_public, unstated, known = _public(groups - mine | slides - set(own["slide_id"]), own)
    seen_slides = (_clear_slides(groups, slides, own) | of_public) & set(asked["slide_id"])
    return Recognised(
        tuple(sorted(groups & set(asked["split_group"]) | seen_slides)),
        {slide: name for slide, name in sorted(unstated.items()) if slide not in seen_slides},
        tuple(sorted(groups - mine - known | set(record["unknown"]))),
    )


def coded(kind: str, name: str, salt: bytes) -> str:
    """The code of a group ('g') or a slide ('s'); a region stays a region of its slide's code."""
    slide = without_region(name)
    return code(kind, slide, salt) + name[len(slide) :]


def is_code(name: str) -> bool:
    """Whether a name of a record is a code, with a data set before it or not."""
    return _CODE.fullmatch(name) is not None


def without_region(name: str) -> str:
    return _REGION.sub("", name)


def _distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """A row for each group and slide, every name as text."""
    columns = {name: rows.get(name, "") for name in ("patient_id", "dataset")}
    own = rows[["split_group", "slide_id", "split"]].assign(**columns).drop_duplicates()
    return own.fillna("").astype(str)


def _names_of_codes(own: pd.DataFrame, salt: bytes | None) -> dict[str, str]:
    """Codes of this study's salt to the names that they stand for."""
    if salt is None:
        return {}
    names = {without_region(name) for column in ("split_group", "slide_id", "patient_id") for name in own[column]}
    return {code(kind, name, salt): name for name in names for kind in _KINDS}


def _decoded(name: str, names: dict[str, str]) -> str:
    if not (found := _CODE.fullmatch(name)):
        return name
    slide = without_region(found[1])
    return names[slide] + found[1][len(slide) :] if slide in names else name


def _clear_slides(groups: set[str], slides: set[str], own: pd.DataFrame) -> set[str]:
    """Slides of this study that a record names as this study does, where it names no group of theirs."""
    exact = groups & set(own["split_group"])
    elsewhere = {without_region(name) for name in groups - exact}  # a patient where this study has slides, and so on
    named = set(own.loc[own["split_group"].isin(exact), "slide_id"])
    whole = own["slide_id"].isin(elsewhere) | own["patient_id"].isin(elsewhere)
    return set(own.loc[whole, "slide_id"]) | slides - named


def _public(names: Iterable[str], own: pd.DataFrame) -> tuple[set[str], dict[str, str], set[str]]:
    """Of `DATASET:NAME`: the slides that are meant; those that may be, with the name; and the names that are known here."""
    places = defaultdict(list)
    for row in own.itertuples():
        for name in {row.split_group, row.slide_id, row.patient_id} - {""}:
            places[_same(name)].append(row)
    meant, unstated, known = set(), {}, set()
    for name in sorted(n for n in names if ":" in n):
        dataset, _, rest = name.partition(":")
        prefixed = {row.slide_id for row in places.get(_same(name), ())}  # ids that have the set's name before them
        stated = {row.slide_id for row in places.get(_same(rest), ()) if _same(row.dataset) == _same(dataset)}
        unstated |= {
            row.slide_id: name
            for row in places.get(_same(rest), ())
            if not row.dataset and row.split in ("val", "test")
        }
        meant |= prefixed | stated
        known |= {name} if prefixed | stated else set()
    return meant, unstated, known


def _same(name: str) -> str:
    return unicodedata.normalize("NFKC", without_region(name)).strip().casefold()
