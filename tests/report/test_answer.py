"""The first page's five answers are true of what was measured."""

from __future__ import annotations

import pytest

from histoloom.report.answer import answers

_STRONG = {"arm": "strong+ssl", "difference": 0.04}
_UPLIFT = {
    "arms": [{"arm": "real"}, _STRONG, {"arm": "strong+synthetic"}], "asked": "strong+synthetic", "test_groups": 30, "test_tiles": 1200,
    "primary_measure": "dice", "comparisons": 3, "protocols_tried": 1, "left_out": {}, "choice": {"chosen_on": "val", "detectable": 0.03},
}  # fmt: skip


def _said(low: float, high: float, more: float, **changed) -> dict[str, str]:
    gain = {
        "arm": "strong+synthetic", "against": "strong+ssl", "difference": (low + high) / 2, "interval": [low, high],
        "interval_of_all": [low - more, high + more],
    }  # fmt: skip
    return dict(answers(_UPLIFT | {"gain": [gain]} | changed))


@pytest.mark.parametrize(
    ("low", "high", "more", "said"),
    [
        (0.02, 0.06, 0.01, "Yes."),
        (0.02, 0.06, 0.03, "Perhaps"),
        (-0.01, 0.03, 0.01, "No measurable help."),
        (-0.05, -0.01, 0.01, "No, it did harm."),
    ],
)
def test_help_is_claimed_only_where_both_intervals_lie_above_nought(low, high, more, said):
    assert _said(low, high, more)["Did it help?"].startswith(said)


def test_the_answers_name_the_best_other_arm_the_patients_and_the_tries():
    said = _said(-0.01, 0.03, 0.01, protocols_tried=3)
    assert "+1.0 points of Dice over 'strong+ssl'" in said["By how much?"] and "by val" in said["By how much?"]
    assert said["Whom?"].startswith("1,200 real tiles of 30 held-out patients") and "too few" not in said["Whom?"]
    assert "2 other protocols" in said["How sure?"] and "3.0 points or more" in said["How sure?"]
    assert (
        "pretrained on unlabelled tiles" in said["What instead?"] and "+4.0 points over 'real'" in said["What instead?"]
    )
    assert "too few" in _said(-0.01, 0.03, 0.01, test_groups=4, few_groups=True)["Whom?"]
    assert _said(0.02, 0.06, 0.01)["What instead?"].startswith("Nothing, but keep")


def test_real_tiles_alone_are_named_where_they_were_best():
    worse = _STRONG | {"difference": -0.06, "interval": [-0.09, -0.03]}
    arms = [{"arm": "real"}, worse, {"arm": "strong+synthetic", "difference": -0.02}]
    said = _said(0.02, 0.06, 0.01, arms=arms)
    assert said["Did it help?"] == "No: it beat 'strong+ssl', but not 'real'."
    assert said["What instead?"].startswith(
        "The real tiles of 'real': 'strong+ssl' did worse than they did (-6.0 points"
    )
    assert _said(0.02, 0.06, 0.01, arms=[{"arm": "strong"}, *arms[1:]])["What instead?"].startswith(
        "The real tiles of 'strong'"
    )
    better = [*arms[:2], {"arm": "strong+synthetic", "difference": 0.01}]
    assert _said(0.02, 0.06, 0.01, arms=better)["Did it help?"] == "Yes."


def test_the_ratio_that_was_best_is_the_one_that_is_quoted():
    rivals = [
        {"arm": "strong+retrieval", "ratio": ratio, "difference": change}
        for ratio, change in ((1.0, -0.03), (2.0, 0.05))
    ]
    arms = [{"arm": "real"}, *rivals, {"arm": "strong+synthetic", "ratio": 1.0}]
    gain = {
        "arm": "strong+synthetic",
        "against": "strong+retrieval, ratio 2",
        "difference": 0,
        "interval": [-0.1, 0.1],
        "interval_of_all": [-0.2, 0.2],
    }
    assert "(+5.0 points over 'real')" in dict(answers(_UPLIFT | {"arms": arms, "gain": [gain]}))["What instead?"]


def test_without_an_interval_nothing_is_said():
    assert _said(float("nan"), float("nan"), 0)["Did it help?"].startswith("Nothing can be said")


def test_what_was_not_measured_is_not_claimed():
    assert dict(answers({"left_out": "uplift.seeds is 0"}))["Did it help?"].startswith("Not measured")
    without = {**_UPLIFT, "asked": None, "arms": [{"arm": "real"}]}
    assert "no gain over strong augmentation" in dict(answers(without))["Did it help?"]
    left = {**_UPLIFT, "left_out": {"strong+synthetic": "no synthetic tile was accepted"}, "gain": []}
    assert "no synthetic tile was accepted" in dict(answers(left))["Did it help?"]
