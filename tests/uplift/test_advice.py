"""Advice follows from what a study has and from what was measured, and claims no more."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from histoloom.cli.main import cli
from histoloom.uplift.advice import Situation, advice, alike, findings, situation_of
from tests.stages import study_of
from tests.uplift.studies import CLASSES, params_of, write_study

_CHANGE = {"difference": 0.03, "interval": [0.01, 0.05], "interval_of_all": [0.005, 0.055]}
_NONE = {"difference": 0.0, "interval": [-0.02, 0.02], "interval_of_all": [-0.03, 0.03]}
FINDING = {
    "name": "rare-0.05", "words": "mitoses", "task": "label", "traits": ["rare class"], "labelled_tiles": 500, "rarest_tiles": 500, "labelled_groups": 90,
    "unlabelled_tiles": 700, "test_groups": 60, "best_other": "strong+ssl", "over_real": _CHANGE, "asked": "strong+synthetic", "gain": _NONE,
    "training_steps": 600, "sampled_tiles": 800, "recipe": None,
}  # fmt: skip


def _situation(**changed) -> Situation:
    base = {
        "task": "label",
        "labelled": {"normal": 400, "atypical": 20},
        "groups": 30,
        "unlabelled": 50,
        "other_cohorts": (),
        "test_groups": 20,
    }
    return Situation(**base | changed)


@pytest.mark.parametrize(
    ("changed", "traits"),
    [
        ({}, ["rare class"]),
        ({"labelled": {"normal": 400, "atypical": 300}}, ["all labels"]),
        ({"labelled": {"normal": 400, "atypical": 300}, "groups": 3}, ["few labels"]),
        ({"other_cohorts": ("site=B",)}, ["another cohort", "rare class"]),
        ({"task": "mask", "labelled": {"masks": 9}}, ["all labels"]),
    ],
)
def test_what_a_study_lacks(changed, traits):
    assert _situation(**changed).traits == traits


@pytest.mark.parametrize(
    ("gain", "said"),
    [
        (_NONE, "Don't train a generator for this. Use strong augmentation with a network pretrained"),
        (_CHANGE, "Sample synthetic tiles"),
        (_CHANGE | {"interval_of_all": [-0.01, 0.06]}, "may be chance"),
    ],
)
def test_synthetic_tiles_are_advised_only_where_a_gain_stood(gain, said):
    text = " ".join(advice(_situation(), [FINDING | {"gain": gain}]))
    assert said in text and "600 steps of training" in text


def test_a_recipe_that_makes_such_tiles_is_named():
    (line,) = (
        x for x in advice(_situation(), [FINDING | {"gain": _CHANGE, "recipe": "theirs"}]) if x.startswith("Advice")
    )
    assert "tiles like those of the recipe 'theirs' beside 'strong+ssl'" in line


def test_what_was_found_of_another_hospital_advises_none_who_has_no_other():
    found = FINDING | {"traits": ["another cohort", "few labels"], "gain": _CHANGE, "recipe": "theirs"}
    few = {"groups": 5, "labelled": {"normal": 400, "atypical": 300}}
    assert "Nothing like it was measured" in " ".join(advice(_situation(**few), [found]))
    assert "'theirs'" in " ".join(advice(_situation(**few, other_cohorts=("site=B",)), [found]))


_LOST = {"difference": -0.03, "interval": [-0.05, -0.01], "interval_of_all": [-0.06, 0.0]}


@pytest.mark.parametrize("nearer", [_CHANGE, _LOST], ids=["gain", "loss"])
def test_where_one_experiment_gained_and_another_lost_val_is_to_choose_whichever_is_nearer(nearer):
    further = _LOST if nearer is _CHANGE else _CHANGE
    both = [FINDING | {"gain": nearer}, FINDING | {"gain": further, "rarest_tiles": 9000}]
    text = " ".join(advice(_situation(), both))
    assert "Don't rely on synthetic tiles" in text and "'strong', 'strong+ssl' and 'strong+retrieval'" in text
    assert "Sample synthetic tiles" not in text and "Don't train a generator" not in text
    assert "retrieval" not in advice(_situation(unlabelled=0), both)[-3]


def test_where_nothing_was_better_than_plain_real_tiles_val_is_to_choose_among_them_too():
    text = " ".join(advice(_situation(), [FINDING | {"over_real": _NONE}]))
    assert "Nothing was shown to be better than real tiles as they are" in text and "among 'real', 'strong'" in text


def test_what_needs_unlabelled_tiles_is_not_advised_without_any():
    text = " ".join(advice(_situation(unlabelled=0), [FINDING | {"gain": _NONE}]))
    assert (
        "Use strong augmentation." in text and "your unlabelled tiles" not in text.split("Advice")[1].split("Cost")[0]
    )


def test_of_alike_experiments_the_nearest_in_size_advises_and_other_tasks_are_not_asked():
    far, near = FINDING | {"rarest_tiles": 9000}, FINDING | {"rarest_tiles": 400}
    assert alike(_situation(), [far, near, FINDING | {"task": "mask"}]) == [near, far]
    assert "Nothing like it was measured" in " ".join(advice(_situation(task="mask", labelled={"masks": 5}), [FINDING]))


@given(
    groups=st.integers(0, 30),
    unlabelled=st.integers(0, 5),
    test=st.integers(0, 30),
    counts=st.tuples(st.integers(0, 99), st.integers(0, 99)),
)
def test_there_is_always_an_answer(groups, unlabelled, test, counts):
    situation = _situation(groups=groups, unlabelled=unlabelled, test_groups=test, labelled=dict(zip(CLASSES, counts)))
    text = advice(situation, [FINDING, FINDING | {"traits": ["all labels", "few labels"], "over_real": None}])
    if not sum(counts):
        assert "No train tile has a label" in text[0] and len(text) == 1
        return
    assert any(line.startswith("Advice: ") for line in text)
    assert ("fewer than ten" in " ".join(text)) == (test < 10)


def test_what_is_packaged_is_read_and_advises():
    for finding in findings():
        situation = _situation(task=finding["task"], labelled={"a": 100, "b": 90}, groups=5)
        assert advice(situation, [finding])


def test_the_command_counts_a_study_and_asks_for_tiles_where_there_are_none(folder):
    Path("params.yaml").write_text("tile: {mpp: 1.0, tile_px: 24, labels: {source: slide, classes: [pink, blue]}}\n")
    assert "dvc repro tile" in CliRunner().invoke(cli, ["advise"]).output
    write_study(folder, list(CLASSES) * 4, list(CLASSES) * 4)
    situation = situation_of(study_of(params_of()).real().rows(), params_of())
    assert situation.labelled == {"pink": 12, "blue": 12} and situation.groups == situation.test_groups == 1
    done = CliRunner().invoke(cli, ["advise"])
    assert done.exit_code == 0 and "12 pink, 12 blue" in done.output
