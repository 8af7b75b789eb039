"""Ids: which forms of one id are told, and that what is made of any file name is an id."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.data.ids import canonical, damage, folder_ids, folder_problem, near_duplicates

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


@given(_TEXT)
def test_forms_of_one_id_have_one_canonical_form(text):
    assert canonical(f" {text}\u200b") == canonical(text) == canonical(canonical(text))
    assert canonical(unicodedata.normalize("NFD", text)) == canonical(unicodedata.normalize("NFC", text))


@given(st.integers(0, 10**9), st.integers(0, 4), st.integers(0, 3))
def test_whole_numbers_keep_their_canonical_form_through_a_spreadsheet(number, zeros, decimals):
    written = "0" * zeros + str(number) + ("." + "0" * decimals if decimals else "")
    assert canonical(written) == str(number)


@given(st.lists(st.one_of(_TEXT, st.sampled_from(["CON", "nan", "1-Mar", "..", "a/b", "x" * 400])), max_size=8))
def test_every_file_name_gives_an_id_that_is_taken_and_its_own(names):
    made = folder_ids(names)
    assert all(folder_problem(text) is None and damage(text) is None for text in made)
    assert near_duplicates(made) == {} and len(set(made)) == len(made)


@pytest.mark.parametrize(
    "text", ["TCGA-A1-A0SB", "E5", "1E5", "12-3", "Mar-1234", "2024-03-01", "p.1", "none_1", "set-12", "MAR-12", "#12"]
)
def test_ids_that_are_whole_are_left_alone(text):
    assert damage(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1-Mar",
            "01. Mrz",
            "Mrz 22",
            "1-mar",
            "01-mars",
            "mars-22",
            "1-ene",
            "mag-22",
            "01/mar",
            "1-mrt",
            "3-set",
            "1-août",
        ),
        *("#NV", "#WERT!", "#BEZUG!", "#NOM?", "#¿NOMBRE?", "#N/A", "#N/D", "#SPILL!", "####", "Err:502"),
        *("n.a.", "missing", "NA", "<NA>", "1-MAR-22"),
    ],
)
def test_what_spreadsheets_of_any_language_make_of_ids_is_told(text):
    assert damage(text) is not None


def test_a_minus_sign_is_a_dash():
    assert near_duplicates(["p-1", "p\u22121"]) == {"p\u22121": "p-1"}


@pytest.mark.parametrize(
    "name, text", [("CMU 1", "CMU_1"), ("._s1", "s1"), ("Ä (2)", "Ä_2"), ("s1-checkpoint", "s1-checkpoint")]
)
def test_names_stay_recognisable(name, text):
    assert folder_ids([name, name]) == [text, f"{text}_2"]
