"""Whether synthetic tiles helped, whom, by how much, how surely, and what to do instead: for a reader of one minute."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from histoloom.config.arms import Arm

_WORDS = {"balanced_accuracy": "balanced accuracy", "dice": "Dice"}
_RIVALS = {
    "retrieval": "real unlabelled tiles that are like the labelled ones",
    "ssl": "a network pretrained on unlabelled tiles",
}
_AUGMENTATION = "strong augmentation of the real tiles"
_STRONG_ARMS = (
    "Have strong and strong+synthetic in uplift.arms, and name the second in uplift.asked. A command of your own augments as it likes: compare "
    "its arms with one another."
)
_ONE_EFFORT = "Set uplift.seeds to 5, with two classes of labels or masks, and have patients in the test split."


class Answer(NamedTuple):
    question: str
    answer: str


def answers(uplift: dict[str, Any]) -> list[Answer]:
    """The five answers of what `uplift` measured, or what is to be done to measure it."""
    gain = _gain(uplift)
    if not uplift.get("arms"):
        return [Answer("Did it help?", "Not measured, so nobody knows."), Answer("What to do?", _ONE_EFFORT)]
    if gain is None:
        why = uplift.get("left_out", {}).get(uplift.get("asked"))
        said = (
            f"'{uplift['asked']}' could not be tried: {why}."
            if why
            else "Nobody knows: no gain over strong augmentation was measured of the arm that the question is about."
        )
        todo = _STRONG_ARMS if not why else "See what the filters rejected, below."
        return [Answer("Did it help?", said), Answer("What to do?", todo)]
    low, high = gain["interval"]
    least, most = gain["interval_of_all"]
    points = round(100 * gain["difference"], 1) + 0.0  # never -0.0
    change = f"{points:+.1f} points of {_WORDS[uplift['primary_measure']]}"
    helped, stands = low > 0, least > 0
    first = uplift["arms"][0]["arm"]
    said = "Yes." if stands else "Perhaps: alone it would count, among all comparisons it may be chance." if helped else (
        "No, it did harm." if high < 0 else "No measurable help."
    )  # fmt: skip
    if math.isnan(low):
        said = "Nothing can be said: the test tiles don't allow an interval."
    if helped and _is_below_first(uplift, gain):
        said = f"No: it beat '{gain['against']}', but not '{first}'."
    groups = uplift["test_groups"]
    whom = (
        f"{uplift['test_tiles']:,} real tiles of {groups} held-out patient{'s' if groups != 1 else ''} (split groups)."
    )
    if uplift.get("few_groups"):
        whom += " These are too few to say anything of other patients."
    sure = f"95 % interval {100 * low:+.1f} to {100 * high:+.1f}; {100 * least:+.1f} to {100 * most:+.1f} if all {uplift['comparisons']} comparisons are to hold."
    if tried := uplift.get("protocols_tried", 1) - 1:
        sure += f" This study tried {tried} other protocol{'s' if tried > 1 else ''} before, or since."
    choice = uplift.get("choice", {})
    if seen := choice.get("detectable"):
        sure += f" The experiment could see {100 * seen:.1f} points or more."
    return [
        Answer("Did it help?", said),
        Answer("Whom?", whom),
        Answer(
            "By how much?",
            f"{change} over '{gain['against']}', of the arms with strong augmentation and no synthetic tiles the best by "
            f"{choice.get('chosen_on', 'val')}.",
        ),
        Answer("How sure?", sure),
        Answer("What instead?", _instead(uplift, gain["against"], stands)),
    ]


def _gain(uplift: dict[str, Any]) -> dict[str, Any] | None:
    """Of the arm that the question is about, at its first ratio."""
    return next((gain for gain in uplift.get("gain", []) if gain["arm"] == uplift.get("asked")), None)


def _entry(uplift: dict[str, Any], name: str, ratio: float = 1.0) -> dict[str, Any]:
    """What was measured of an arm at a ratio; `name` may state it, as `gain` names the arm that it compares with."""
    arm, _, stated = name.partition(", ratio ")
    wanted = float(stated or ratio)
    return min((a for a in uplift["arms"] if a["arm"] == arm), key=lambda a: abs(a.get("ratio", 1.0) - wanted))


def _is_below_first(uplift: dict[str, Any], gain: dict[str, Any]) -> bool:
    """Whether an arm did worse than the first one, real tiles as they are."""
    return _entry(uplift, gain["arm"], gain.get("ratio", 1.0)).get("difference", 0.0) < 0


def _instead(uplift: dict[str, Any], other: str, stands: bool) -> str:
    """What the best arm with strong augmentation and no synthetic tiles is, and what it is worth beside the first arm."""
    entry, first = _entry(uplift, other), uplift["arms"][0]["arm"]
    arm = Arm.of(entry["arm"])
    more = [text for word, text in _RIVALS.items() if word in arm.words]
    means = " and ".join([_AUGMENTATION, *more])
    worth = f" ({100 * entry['difference']:+.1f} points over '{first}')" if "difference" in entry else ""
    if "interval" in entry and entry["interval"][1] < 0:
        return f"The real tiles of '{first}': '{other}' did worse than they did{worth}."
    return (
        f"Nothing, but keep {means}{worth}."
        if stands
        else f"{means[0].upper()}{means[1:]}{worth}. It costs no generator."
    )
