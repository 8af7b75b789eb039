"""What a model's lineage record names of this study, under whatever name it does so.

A record names groups and slides as the study that trained it did; a package names them by salted codes, or, of a public
set, as `DATASET:NAME`. A region's name states its grid, as in `SLIDE/r0c2@6x3`: under another grid it covers other tissue.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from histoloom.config import Split
from histoloom.data.codes import code
from histoloom.data.ids import canonical, damage
from histoloom.data.splits import assign_block

_REGION = re.compile(r"/r\d+c\d+(@\d+x\d+)?$", re.IGNORECASE)
_CODE = re.compile(r"(?:.+:)?([gs]-[0-9a-f]{12}(?:/r\d+c\d+(?:@\d+x\d+)?)?)")
_KINDS = ("g", "s")  # of groups and of slides


@dataclass(frozen=True)
class Recognised:
    """held_out : groups and slides of val and test that the model saw.
    unstated : slides of val and test, to a public name of the record that may be theirs: they state no data set, or differ from it
        in spelling.
    unknown : what the model saw that is none of this study's, sources of unknown ancestry among it.
    seen : the study's groups that the model saw, of whatever split. Splits that are drawn change as groups are assigned, so that all
        of these belong in train, and not those alone that are held out now.
    is_all_seen : whether the study has no other group.
    """

    held_out: tuple[str, ...]
    unstated: dict[str, str]
    unknown: tuple[str, ...]
    seen: tuple[str, ...] = ()
    is_all_seen: bool = False

    def complaint(self, who: str) -> str | None:
        """Why `who` may not be used where val and test are; None if it may."""
        if self.held_out:
            return (
                f"{who} was trained on held-out groups or slides: {first(self.held_out)}. "
                f"Train it on the train split alone, or {all_in_train(self.seen, is_all=self.is_all_seen)}"
            )
        if self.unstated:
            slides, name = first([*self.unstated]), next(iter(self.unstated.values()))
            return (
                f"{who} saw '{name}', and a held-out slide, or its patient, has that name or one like it: {slides}. In slides.csv, "
                f"{answer(name)}"
            )
        return None


def all_in_train(seen: Iterable[str], stated: Mapping[str, str] | None = None, *, is_all: bool) -> str:
    """How to keep what a model saw out of val and test: a block to be pasted into params.yaml.

    Parameters
    ----------
    seen : the study's groups that the model saw.
    stated : what params assign already; it stays in the block.
    is_all : whether the study has no other group, so that nobody would be left to be held out.
    """
    if is_all:
        return "add groups that it never saw: it saw all groups of this study."
    block = assign_block({**(stated or {}), **dict.fromkeys(sorted(seen), "train")})
    return f"put all groups that it saw into train, at once, in params.yaml:\n{block}"


def first(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def answer(name: str, *, several: bool = False) -> str:
    """How slides.csv says whether a slide is the public one of this name; of `several`, whether each is the one of its name."""
    dataset, _, rest = name.partition(":")
    if several:
        stated = f"write `dataset` {dataset} and that set's ids for every slide of it, those in train too"
        return f"{stated} (for a set of tiles: values: {{dataset: {dataset}}}); write another word (such as own) as `dataset` of all others."
    return f"write `dataset` {dataset} and the id {rest} if it is that slide, or another word (such as own) as its `dataset` if it isn't."


def grid_of(split: Split) -> str:
    """The grid that divides a study's slides, as names of regions state it; '' where none does. Its gap moves no border."""
    return f"{split.region.rows}x{split.region.cols}" if split.group == "region" else ""


def recognise(record: dict, rows: pd.DataFrame, salt: bytes | None = None, grid: str = "") -> Recognised:
    """Match a lineage record with a study's rows.

    Names as they are and codes of the study's own salt are exact: a group is a group, and a slide counts only where it was
    seen under no group that is used here. A region of another grid, or of one that nobody stated, counts as its slide. A public
    name is matched with groups, patients and slides whatever their case, and its region is ignored.

    Parameters
    ----------
    record : {groups, slides, unknown}.
    rows : of the real store, of all splits, with `split_group`, `slide_id`, `split`, and, where there are, `patient_id` and
        `dataset`.
    salt : the study's, to know its own codes by.
    grid : the study's (grid_of).
    """
    own = _distinct(rows)
    divided = set(own.loc[own["split_group"].map(without_region) == own["slide_id"], "slide_id"]) - set(
        own["split_group"]
    )
    names = _names_of_codes(own, salt)
    groups, slides = ({_decoded(name, names) for name in record[field]} for field in ("groups", "slides"))
    groups = {_on_grid(name, divided, grid) for name in groups}
    mine, asked = set(own["split_group"]), own[own["split"].isin(("val", "test"))]
    of_public, unstated, known = _public(groups - mine | slides - set(own["slide_id"]), own)
    every_slide = _clear_slides(groups, slides, own, divided) | of_public
    seen = groups & mine | set(own.loc[own["slide_id"].isin(every_slide), "split_group"])
    seen_slides = every_slide & set(asked["slide_id"])
    return Recognised(
        tuple(sorted(groups & set(asked["split_group"]) | seen_slides)),
        {slide: name for slide, name in sorted(unstated.items()) if slide not in seen_slides},
        tuple(sorted({g for g in groups - mine - known if without_region(g) not in divided} | set(record["unknown"]))),
        tuple(sorted(seen)),
        seen == mine,
    )


def coded(kind: str, name: str, salt: bytes) -> str:
    """The code of a group ('g') or a slide ('s'); a region stays a region of its slide's code."""
    slide = without_region(name)
    return code(kind, slide, salt) + name[len(slide) :]


def is_code(name: str) -> bool:
    """Whether a name of a record is a code, with a data set before it or not."""
    return _CODE.fullmatch(name) is not None


def id_problem(name: str) -> tuple[str, str] | None:
    """Problem and remedy of an id that is none (ids.damage), or that would be taken for a code."""
    if is_code(name):
        problem = f"'{name}' has the form of the codes that stand for ids outside."
        return problem, "put something before it, such as 'id-'."
    return damage(name)


def without_region(name: str) -> str:
    return _REGION.sub("", name)


def _on_grid(name: str, divided: set[str], grid: str) -> str:
    """A divided slide's region as this study calls it, where it is of this grid; of another grid's, the slide."""
    slide = without_region(name)
    if slide == name or slide not in divided:
        return name
    region, _, stated = name.rpartition("@")
    return region if stated == grid else slide


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


def _clear_slides(groups: set[str], slides: set[str], own: pd.DataFrame, divided: set[str]) -> set[str]:
    """Slides of this study that a record names as this study does, where it names no group of theirs."""
    # of this grid, with tiles here or not
    regions = {name for name in groups if without_region(name) in divided - {name}}
    exact = groups & set(own["split_group"]) | regions
    elsewhere = {without_region(name) for name in groups - exact}  # a patient where this study has slides, and so on
    named = set(own.loc[own["split_group"].isin(exact), "slide_id"]) | {without_region(name) for name in regions}
    whole = own["slide_id"].isin(elsewhere) | own["patient_id"].isin(elsewhere)
    return set(own.loc[whole, "slide_id"]) | slides - named


def _public(names: Iterable[str], own: pd.DataFrame) -> tuple[set[str], dict[str, str], set[str]]:
    """Of `DATASET:NAME`: the slides that are meant; those that may be, with the name; and the names that are known here."""
    places = defaultdict(list)
    for row in own.itertuples():
        for name in {row.split_group, row.slide_id, row.patient_id} - {""}:
            places[_alike(name)].append((_same(name), row))
    meant, unstated, known = set(), {}, set()
    for name in sorted(n for n in names if ":" in n):
        dataset, _, rest = name.partition(":")
        for spelt, row in (*places.get(_alike(name), ()), *places.get(_alike(rest), ())):
            stated = spelt == _same(rest) and _same(row.dataset) == _same(dataset)
            if stated or spelt == _same(name):  # ids may have the set's name before them
                meant.add(row.slide_id)
                known.add(name)
            elif row.split in ("val", "test") and _alike(row.dataset) in ("", _alike(dataset)):
                unstated[row.slide_id] = name
    return meant, unstated, known


def _same(name: str) -> str:
    return unicodedata.normalize("NFKC", without_region(name)).strip().casefold()


def _alike(name: str) -> str:
    """What remains of a name in any spelling: without separators, but between digits, and without zeros before a number."""
    plain = canonical(re.sub(r"[\s_]+", "-", without_region(name).strip())).replace(".", "-")
    joined = re.sub(r"(?<!\d)-+|-+(?!\d)", "", plain)
    return re.sub(r"-+", "-", re.sub(r"(?<!\d)0+(?=\d)", "", joined))
