"""A value of a genotype table means a state, or nothing; numbers mean what their column shows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.config import Genotype
from histoloom.data.alterations import look_like_stages, readings, whole_number

CONFIG = Genotype()


def state(value: str) -> str | None:
    return readings({"TP53": [value]}, CONFIG)[0]["TP53"].state(value)


@pytest.mark.parametrize(
    "value",
    ["R175H", "p.R175H", "p.(Arg175His)", "p.Arg175His", "W91*", "Trp53Ter", "P77Gfs*65", "R175fs", "E746_A750del", "Q61_E62delinsHK",
     "L747_P753>S", "V600dup", "X125_splice", "M1?", "*237Lext*5", "R175H P77Gfs*65", "R175H,T125=", "R175H;R248Q", "mut"],
)  # fmt: skip
def test_protein_changes_are_altered(value):
    assert state(value) == "altered"


@pytest.mark.parametrize("value", ["WT", "wt", "Wild Type", "T125=", "T125T", "p.Thr125Thr", "p.(Thr125=)"])
def test_silent_changes_and_words_are_wild_type(value):
    assert state(value) == "wt"


@pytest.mark.parametrize(
    "value", ["T1", "G2", "pT3", "N0", "R175", "63", "0.25", "0,25", "male", "c.524G>A", "yes", "-", "3"]
)
def test_what_states_no_change_means_nothing(value):
    assert state(value) is None


@pytest.mark.parametrize("value", ["", "NA", "ns", "NaN", "NT"])
def test_not_tested_is_empty(value):
    assert state(value) == ""


def _read(values: list[str], **others: list[str]):
    how, unsure = readings({"ERBB2": values, **others}, CONFIG)
    return [how["ERBB2"].state(value) for value in values], unsure


def test_levels_of_gistic_are_not_mutations():
    found, unsure = _read(["-2", "-1", "0", "1", "2", "+1", "1.0", "\u22122"])
    assert found == ["deep_deletion", "loss", "wt", "gain", "amplification", "gain", "gain", "deep_deletion"]
    assert unsure == []


def test_zero_and_one_alone_are_a_mutation():
    assert _read(["0", "1", "1.0", "", "0.0"]) == (["wt", "altered", "altered", "", "wt"], [])


def test_numbers_that_may_mean_either_are_asked_for():
    assert _read(["0", "1"], CDKN2A=["-2", "0"])[1] == ["ERBB2"]
    assert _read(["1", "2"])[1] == ["ERBB2"]
    config = Genotype(numbers={"ERBB2": "gistic"})
    how, unsure = readings({"ERBB2": ["0", "1"], "CDKN2A": ["-2", "0"]}, config)
    assert how["ERBB2"].state("1") == "gain" and unsure == []
    assert readings({"ERBB2": ["1", "2"]}, Genotype(numbers="mutation"))[0]["ERBB2"].state("2") is None


def test_copies_are_no_levels():
    assert _read(["2", "3", "6", "0"]) == ([None] * 4, [])


def test_what_params_state_of_a_number_comes_first():
    config = Genotype(altered={"mutant": ("1",), "gain": ("2",)})
    how, _ = readings({"ERBB2": ["1", "2", "0"]}, config)
    assert [how["ERBB2"].state(value) for value in ("1", "2", "0", "R175H")] == ["mutant", "gain", "wt", "mutant"]


@given(st.integers(-(10**9), 10**9))
def test_whole_numbers_are_read_as_tables_write_them(number):
    assert whole_number(str(number)) == whole_number(f"{number}.0") == number


@given(st.floats(allow_nan=False).filter(lambda x: x != int(x) if abs(x) < 1e15 else False))
def test_other_numbers_are_none(number):
    assert whole_number(repr(number)) is None


def test_stages_are_told_from_changes():
    assert look_like_stages(["T1A", "M1A", "pT2b", "IIIA", "G3"])
    assert not look_like_stages(["T1A", "R175H"]) and not look_like_stages(["T2A", "WT"])


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"altered": {"a": ("x",), "b": ("X",)}}, "can't be both"),
        ({"altered": {"a": ("WT",)}}, "can't be both"),
        ({"altered": {}}, "names no alteration"),
        ({"altered": {"tested": ("x",)}}, "can't name an alteration"),
        ({"altered": {"a=b": ("x",)}}, "can't name an alteration"),
        ({"key_pattern": "("}, "no regular expression"),
        ({"key_pattern": "TCGA.*"}, "needs one group"),
    ],
)
def test_params_that_contradict_themselves_are_refused(options, problem):
    with pytest.raises(ValueError, match=problem):
        Genotype(**options)
