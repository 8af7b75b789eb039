"""Whether synthetic tiles helped, whom, by how much, how surely, and what to do instead: for a reader of one minute."""

from __future__ import annotations

from typing import Any, NamedTuple

from histoloom.config.arms import Arm

_WORDS = {"balanced_accuracy": "balanced accuracy", "dice": "Dice"}
_RIVALS = {
    "retrieval": "real unlabelled tiles that are like the labelled ones",
    "ssl": "a network pretrained on unlabelled tiles",
}
_AUGMENTATION = "strong augmentation of the real tiles"
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
            else "No arm with synthetic tiles was compared with strong augmentation."
        )
        todo = "Add strong and strong+synthetic to uplift.arms." if not why else "See what the filters rejected, below."
        return [Answer("Did it help?", said), Answer("What to do?", todo)]
    low, high = gain["interval"]
    least, most = gain["interval_of_all"]
    points = round(100 * gain["difference"], 1) + 0.0  # never -0.0
    change = f"{points:+.1f} points of {_WORDS[uplift['primary_measure']]}"
    helped, stands = low > 0, least > 0
    first, over_first = uplift["arms"][0]["arm"], _over_first(uplift, gain["arm"])
    plain_is_better = over_first is not None and over_first < 0
    said = "Yes." if stands else "Perhaps: alone it would count, among all comparisons it may be chance." if helped else (
        "No, it did harm." if high < 0 else "No measurable help."
    )  # fmt: skip
    if helped and plain_is_better:
        said = f"No: '{first}' was better than either arm."
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
        Answer("What instead?", _instead(uplift, gain["against"], stands and not plain_is_better)),
    ]


def _gain(uplift: dict[str, Any]) -> dict[str, Any] | None:
    """Of the arm that the question is about, at its first ratio."""
    return next((gain for gain in uplift.get("gain", []) if gain["arm"] == uplift.get("asked")), None)


def _over_first(uplift: dict[str, Any], name: str) -> float | None:
    """The difference of an arm from the first one, real tiles as they are; None of an arm that was not compared."""
    return next((arm.get("difference") for arm in uplift["arms"] if arm["arm"] == name), None)


def _instead(uplift: dict[str, Any], other: str, stands: bool) -> str:
    """What the best arm without synthetic tiles is, and what it is worth beside bare real tiles."""
    arm = Arm.of(other.split(",")[0])
    more = [text for word, text in _RIVALS.items() if word in arm.words]
    means = " and ".join([_AUGMENTATION, *more])
    over_first, first = _over_first(uplift, arm.name), uplift["arms"][0]["arm"]
    worth = "" if over_first is None else f" ({100 * over_first:+.1f} points over '{first}')"
    if over_first is not None and over_first < 0 and not stands:
        return f"Real tiles without strong augmentation: '{arm.name}' did worse than they did{worth}."
    return (
        f"Nothing, but keep {means}{worth}."
        if stands
        else f"{means[0].upper()}{means[1:]}{worth}. It costs no generator."
    )
