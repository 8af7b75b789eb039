"""Which recipe is likely to help a study, from its counts and from what was measured elsewhere (measured.json)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, TypedDict

import pandas as pd

from histoloom.config import Params
from histoloom.config.arms import Arm
from histoloom.data.rows import held_out_rows, shows_mask
from histoloom.data.slide_fields import chosen

Trait = Literal["rare class", "another cohort", "few labels", "all labels"]
"""What a study lacks. A study may lack several things."""
MEASURED = "measured.json"
_ELSEWHERE: Trait = "another cohort"
"""What was found of another hospital tells nothing where there is none."""
_RARE = 0.25
"""A class with fewer train tiles than this fraction of the largest one's is rare."""
_FEW = 10
"""Labelled split groups."""


class Change(TypedDict):
    """A difference of the main measure, with its 95 % interval, and the wider one of all comparisons of the experiment."""

    difference: float
    interval: list[float]
    interval_of_all: list[float]


class Finding(TypedDict):
    """One experiment of `benchmarks.uplift`.

    words : what it was, for a reader. traits : what its study lacked. asked : the arm with synthetic tiles that it was about.
    rarest_tiles : labelled tiles of the class that has fewest; of masks, all.
    best_other : the best arm without synthetic tiles, `over_real` what it gained over real tiles without augmentation.
    gain : what synthetic tiles gained over `best_other`. recipe : of `histoloom init`, which makes such tiles.
    """

    name: str
    words: str
    task: Literal["label", "mask"]
    traits: list[Trait]
    labelled_tiles: int
    rarest_tiles: int
    labelled_groups: int
    unlabelled_tiles: int
    test_groups: int
    best_other: str
    over_real: Change | None
    asked: str
    gain: Change
    training_steps: int
    sampled_tiles: int
    recipe: str | None


@dataclass(frozen=True)
class Situation:
    """What a study has.

    labelled : class to labelled train tiles; of masks, one entry. other_cohorts : values of slides.csv that held-out tiles have, and no labelled
    train tile.
    """

    task: Literal["label", "mask"]
    labelled: dict[str, int]
    groups: int
    unlabelled: int
    other_cohorts: tuple[str, ...]
    test_groups: int

    @property
    def traits(self) -> list[Trait]:
        """What it lacks, the most telling first."""
        found: list[Trait] = []
        if self.other_cohorts:
            found.append("another cohort")
        if len(self.labelled) > 1 and min(self.labelled.values()) < _RARE * max(self.labelled.values()):
            found.append("rare class")
        if self.groups < _FEW:
            found.append("few labels")
        return found or ["all labels"]


def situation_of(rows: pd.DataFrame, params: Params) -> Situation:
    """Count what the rows of real tiles have."""
    task, train, held_out = params.uplift.task, rows[rows["split"] == "train"], held_out_rows(rows)
    known = (
        shows_mask(train) & ~train["predicted"].astype(bool)
        if task == "mask"
        else train["label"].isin(params.tile.labels.classes)
    )
    labelled = train[known]
    counts = (
        {"masks": len(labelled)}
        if task == "mask"
        else {c: int((labelled["label"] == c).sum()) for c in params.tile.labels.classes}
    )
    columns = params.train_encoders.cohort.columns or ("site", "dataset")
    elsewhere = sorted({*_values(held_out, columns)} - {*_values(labelled, columns)})
    return Situation(
        task,
        counts,
        labelled["split_group"].nunique(),
        int((~known).sum()),
        tuple(elsewhere),
        held_out["split_group"].nunique(),
    )


def findings() -> list[Finding]:
    """What was measured, in the order in which it was."""
    return json.loads(files("histoloom.uplift").joinpath(MEASURED).read_text(encoding="utf-8"))


def alike(situation: Situation, measured: Iterable[Finding]) -> list[Finding]:
    """Experiments of the same task whose studies lacked the same thing, those with the nearest number of labelled tiles of the rarest class first."""
    count = min(situation.labelled.values())
    traits = {*situation.traits}
    same = [f for f in measured if f["task"] == situation.task and {*f["traits"]} & traits]
    same = [f for f in same if _ELSEWHERE not in f["traits"] or _ELSEWHERE in traits]
    return sorted(same, key=lambda f: max(f["rarest_tiles"], count) / max(1, min(f["rarest_tiles"], count)))


def advice(situation: Situation, measured: Iterable[Finding]) -> list[str]:
    """Paragraphs for the person who owns the study."""
    counts = ", ".join(f"{count:,} {name}" for name, count in situation.labelled.items())
    if not sum(situation.labelled.values()):
        kind = "mask" if situation.task == "mask" else "label"
        return [
            f"No train tile has a {kind}, so there is nothing that a learner could be taught. State tile.{kind}s, then ask again."
        ]
    said = [
        f"Your study: {counts}, of {_patients(situation.groups)} (split groups); {situation.unlabelled:,} unlabelled train tiles; "
        f"tiles of {_patients(situation.test_groups)} to test on.",
        f"What marks it: {', '.join(situation.traits)}."
        + (
            f" Held-out tiles are of {', '.join(situation.other_cohorts)}, of which no tile is labelled."
            if situation.other_cohorts
            else ""
        ),
    ]
    known = alike(situation, measured)
    if not known:
        return [*said, "Nothing like it was measured. " + _UNKNOWN]
    said += [_reported(finding) for finding in known]
    nearest = known[0]
    helped = [finding for finding in known if finding["gain"]["interval"][0] > 0]
    lost = [finding for finding in known if finding["gain"]["interval"][1] < 0]
    if helped and lost:
        todo = (
            f"Don't rely on synthetic tiles: in one of these experiments they gained, in another they lost. Let val choose among "
            f"{_listed(situation, ('strong', 'strong+ssl', 'strong+retrieval'))}. If you try {_tried(helped[0])} beside them, go by "
            "what your own test patients show."
        )
    elif nearest in helped and nearest["gain"]["interval_of_all"][0] > 0:
        todo = f"Sample synthetic tiles, and have uplift.arms try {_tried(nearest)} beside '{nearest['best_other']}'."
    elif nearest in helped:
        todo = f"Try {_tried(nearest)}, but expect little: among all comparisons of that experiment its gain may be chance."
    elif (over := nearest["over_real"]) is not None and over["interval"][0] <= 0:
        todo = (
            "Don't train a generator for this. Nothing was shown to be better than real tiles as they are. Let val choose among "
            f"{_listed(situation, ('real', 'strong', 'strong+ssl', 'strong+retrieval'))}."
        )
    else:
        todo = f"Don't train a generator for this. Use {_in_words(nearest['best_other'], situation)}."
    return [*said, f"Advice: {todo}", _COST.format(**nearest), *_cautions(situation)]


_UNKNOWN = "Leave uplift's arms as they are: they try what costs least first. See the report's first answers."
_COST = (
    "Cost of synthetic tiles there: {training_steps:,} steps of training, and {sampled_tiles:,} sampled tiles. Strong augmentation costs nothing, pretraining one "
    "short training without labels, retrieval one look at each unlabelled tile."
)


def _tried(finding: Finding) -> str:
    """The arm with synthetic tiles that an experiment was about, and where such tiles come from."""
    return (
        f"'{finding['asked']}'"
        if finding["recipe"] is None
        else f"synthetic tiles like those of the recipe '{finding['recipe']}'"
    )


def _reported(finding: Finding) -> str:
    """What an experiment found, in a sentence or two."""
    rare = f", {finding['rarest_tiles']:,} of the rarest class," if finding["task"] == "label" else ""
    size = f"{finding['labelled_tiles']:,} labelled tiles{rare} of {finding['labelled_groups']} split groups, {finding['unlabelled_tiles']:,} unlabelled"
    over = (
        f" changed the result of real tiles as they are by {_points(finding['over_real'])}, and"
        if finding["over_real"]
        else " was best without synthetic tiles;"
    )
    few = ", too few to tell of others" if finding["test_groups"] < _FEW else ""
    return (
        f"Measured, {finding['words']} ({size}): '{finding['best_other']}'{over} synthetic tiles changed that by {_points(finding['gain'])}, "
        f"on {finding['test_groups']} split groups{few}."
    )


def _points(change: Change) -> str:
    low, high = (100 * value for value in change["interval"])
    return f"{100 * change['difference']:+.1f} points ({low:+.1f} to {high:+.1f})"


def _cautions(situation: Situation) -> list[str]:
    found = []
    if situation.test_groups < _FEW:
        found.append(
            "Your held-out patients are fewer than ten, so uplift will not tell about other patients. More test patients help more than more tiles."
        )
    if not situation.unlabelled and situation.traits != ["all labels"]:
        found.append(
            "You have no unlabelled tiles. Most known gains come from what labels lack: add slides without labels (tile.labels.unlabelled: keep)."
        )
    if situation.traits == ["all labels"]:
        found.append("Nothing is missing that synthetic tiles are known to supply. More patients would help more.")
    return found


def _patients(count: int) -> str:
    return f"{count} patient{'' if count == 1 else 's'}"


def _in_words(arm: str, situation: Situation) -> str:
    words = Arm.of(arm).words if situation.unlabelled else ()
    more = {
        "ssl": "a network pretrained on your unlabelled tiles",
        "retrieval": "your unlabelled tiles that are like the labelled ones",
    }
    return " with ".join(["strong augmentation", *(text for word, text in more.items() if word in words)])


def _listed(situation: Situation, arms: tuple[str, ...]) -> str:
    """Those that the study can run: without unlabelled tiles nothing is retrieved."""
    kept = [f"'{arm}'" for arm in arms if situation.unlabelled or "retrieval" not in Arm.of(arm).words]
    return f"{', '.join(kept[:-1])} and {kept[-1]}"


def _values(rows: pd.DataFrame, columns: Iterable[str]) -> set[str]:
    return {f"{name}={value}" for fields in chosen(rows, tuple(columns)) for name, value in fields.items()}
