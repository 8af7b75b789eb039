"""Keys of tables and ids of the study: matched exactly, and what nearly matches is said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.config import Genotype
from histoloom.data.keys import StudyKeys, check_matches, read_keys, unmatched
from histoloom.errors import Note, faults_among, notes_among

STUDY = StudyKeys(frozenset({"P1", "P2", "P3"}), frozenset({"P1", "P2", "P3", "P4"}))
TCGA = StudyKeys(frozenset({"TCGA-A7-A13E", "TCGA-A7-A13F"}), frozenset({"TCGA-A7-A13E", "TCGA-A7-A13F"}))


def _config(**options) -> Genotype:
    return Genotype(table="g.csv", **options)


def _found(ids, keys=STUDY, **options):
    return check_matches(ids, keys, _config(**options))


def test_all_that_match_say_nothing():
    assert _found(["P1", "P2", "P3", "P4"]) == []


def test_what_does_not_match_is_counted_on_both_sides():
    (note,) = _found(["P1", "P2", "Q7", "Q8"])
    assert isinstance(note, Note)
    assert "knows 2 of the train split's 3 patient_ids and 0 of 1 others" in note.fact
    assert "'P3', 'P4'" in note.fact and "2 row(s) are of none of the study's: 'Q7', 'Q8'" in note.fact
    counts = {"train_ids_without_row": 1, "other_ids_without_row": 1, "rows_without_id": 2}
    assert unmatched(["P1", "P2", "Q7", "Q8"], STUDY) == counts


def test_none_that_matches_is_a_fault_and_too_few_are():
    (fault,) = faults_among(_found(["A", "B"]))
    assert "knows 0 of the train split's 3" in fault.problem and "'P1'" in fault.remedy
    (fault,) = faults_among(_found(["P1"]))
    assert "1 of the train split's 3" in fault.problem and "min_matched" in fault.remedy
    assert not faults_among(_found(["P1"], min_matched=0.3))


@pytest.mark.parametrize("key", ["p2", "P02", "P2.0", "P 2", "\uff302"])
def test_keys_that_are_written_otherwise_are_named(key):
    (fault,) = faults_among(_found(["P1", key, "P3", "P4"]))
    assert f"'{key}' for 'P2'" in fault.problem and "slides.csv" in fault.remedy


def test_barcodes_of_samples_are_named_with_the_pattern_that_reads_them():
    barcodes = ["TCGA-A7-A13E-01A", "TCGA-A7-A13F-01A"]
    (fault,) = faults_among(_found(barcodes, TCGA))
    pattern = "^([^-]+-[^-]+-[^-]+)"
    assert "'TCGA-A7-A13E-01A' for 'TCGA-A7-A13E'" in fault.problem and f"key_pattern: '{pattern}'" in fault.remedy
    ids, faults = read_keys(barcodes, _config(key_pattern=pattern))
    assert not faults and not _found(ids, TCGA)


def test_an_extended_key_of_a_patient_who_has_a_row_is_one_row_too_many():
    (note,) = _found(["P1", "P1-01A", "P2", "P3", "P4"])
    assert isinstance(note, Note) and "'P1-01A'" in note.fact


def test_ids_longer_than_the_keys_are_told_to_use_another_column():
    slides = StudyKeys(frozenset({"P1-a", "P1-b"}), frozenset({"P1-a", "P1-b"}))
    (fault,) = faults_among(_found(["P1"], slides))
    assert "2 id(s)" in fault.problem and "'P1-a' for 'P1'" in fault.problem
    assert "train_encoders.genotype.key" in fault.remedy


def test_keys_are_read_without_blanks_and_gaps_are_faults():
    ids, faults = read_keys([" P1 ", "P2\t", None, float("nan"), ""], _config(), [2, 3, 4, 5, 6])
    assert ids[:2] == ["P1", "P2"]
    (fault,) = faults
    assert "3 row(s) have no id" in fault.problem and fault.row == 4


def test_two_rows_of_one_id_are_one_fault_also_after_the_pattern():
    (fault,) = read_keys(["P1", "P2", "P1"], _config(), [2, 3, 7])[1]
    assert "'P1'" in fault.problem and "(rows 2, 7)" in fault.problem and fault.row == 7
    (fault,) = read_keys(["P1-01A", "P1-11A"], _config(key_pattern="^([^-]+)"))[1]
    assert "'P1-01A', 'P1-11A'" in fault.problem


def test_ids_that_differ_by_case_alone_and_keys_beside_the_pattern_are_faults():
    (fault,) = read_keys(["P1", "p1"], _config())[1]
    assert "differ by case alone: 'P1', 'p1'" in fault.problem
    (fault,) = read_keys(["TCGA-1", "other"], _config(key_pattern="^(TCGA-.)"))[1]
    assert "'other'" in fault.problem


@given(
    st.sets(st.text("AB1-", min_size=1, max_size=4), max_size=6),
    st.sets(st.text("AB1-", min_size=1, max_size=4), max_size=6),
)
def test_every_id_that_is_not_matched_is_counted(ids, study):
    keys = StudyKeys(frozenset(sorted(study)[::2]), frozenset(study))
    counts = unmatched(ids, keys)
    assert counts["train_ids_without_row"] + counts["other_ids_without_row"] == len(study - ids)
    assert counts["rows_without_id"] == len(ids - study)
    found = check_matches(ids, keys, _config())
    assert bool(notes_among(found)) == (ids != study)
    assert bool(faults_among(found)) or keys.train & ids
