"""Faults stop a stage, notes are said beside them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from histoloom.errors import Fault, ManifestFaults, Note, count_of, faults_among, lines_of, notes_among


def test_a_note_says_its_place_and_is_told_from_a_fault():
    fault, note = Fault("a.csv", "it is empty.", "fill it in.", 3, "label"), Note("a.geojson", "2 points left out.", 4)
    assert str(note) == "a.geojson, row 4: 2 points left out."
    assert str(fault) == "a.csv, row 3, column 'label': it is empty. Remedy: fill it in."
    assert (faults_among([fault, note]), notes_among([fault, note])) == ([fault], [note])


def _faults(rows, problem="it is empty.", **changes) -> list[Fault]:
    return [
        Fault(**{"where": "a.csv", "problem": problem.format(row), "remedy": "mend it.", "row": row} | changes)
        for row in rows
    ]


@pytest.mark.parametrize(
    "rows, text",
    [
        (range(2, 1880), "rows 2 to 1879"),
        ([*range(2, 41), 44, *range(51, 1880)], "rows 2 to 40, 44 and 51 to 1879"),
        ([9, 2], "rows 2 and 9"),
        ([2, 3, 5], "rows 2, 3 and 5"),
        ([7, 7], "row 7"),
        (range(2, 40, 2), "rows 2, 4, 6, 8, 10, 12, 14, 16 and 11 more"),
    ],
)
def test_a_fault_that_many_rows_share_is_one_line(rows, text):
    assert lines_of(_faults(rows)) == [f"a.csv, {text}: it is empty. Remedy: mend it."]


def test_faults_that_differ_in_a_value_share_a_line_that_shows_some():
    faults = _faults(range(2, 17), "unknown label 'x{}'.", column="label")
    (line,) = lines_of(faults)
    assert line == "a.csv, rows 2 to 16, column 'label': unknown label 'x2', 'x3', 'x4' and 12 more. Remedy: mend it."
    assert lines_of(_faults([2, 3], "unknown label '{}'."))[0].count("'2' and '3'") == 1
    (line,) = lines_of(_faults(range(2, 6), "'s{0}' stands in row 1{0} already."))
    assert "rows 2 to 5: 's2' stands in row 12 already. So with 3 more. Remedy" in line


def test_what_differs_otherwise_keeps_its_line():
    faults = _faults([2]) + _faults([3], remedy="other.") + _faults([4], column="x") + _faults([5], where="b.csv")
    assert lines_of(faults) == [str(fault) for fault in faults]
    assert count_of(faults) == "4 fault(s), in 4 rows" and count_of(faults[:1]) == "1 fault(s)"


def test_a_fault_that_many_files_share_is_one_line():
    faults = [fault for n in range(200) for fault in _faults([n, n + 1], where=f"{n}.geojson")]
    assert lines_of(faults) == ["0.geojson, 1.geojson, 2.geojson and 197 more: it is empty. Remedy: mend it."]
    assert count_of(faults) == "1 fault(s), in 400 rows"
    assert [line.split(":")[0] for line in lines_of(faults[:6])] == [
        f"{n}.geojson, rows {n} and {n + 1}" for n in range(3)
    ]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(1, 9), st.sampled_from(["Q.", "Z '1'.", "Z '2'."]))))
def test_every_fault_is_in_one_line_and_lines_come_in_the_faults_order(stated):
    faults = [fault for where, row, problem in stated for fault in _faults([row], problem, where=where)]
    lines = lines_of(faults)
    assert len(lines) <= len(faults) and bool(lines) == bool(faults)
    first = [
        next(n for n, each in enumerate(faults) if each.where == line[0] and each.problem[0] in line) for line in lines
    ]
    assert first == sorted(first)
    for fault in faults:
        assert any(
            fault.problem[0] in line and (fault.where in line.split(":")[0] or " more:" in line) for line in lines
        )


def test_the_error_counts_lines_and_rows_and_keeps_each_fault():
    error = ManifestFaults([*_faults(range(2, 1880)), Fault("b.csv", "missing.", "write it.")])
    assert str(error).startswith("2 fault(s), in 1,878 rows in what") and len(error.faults) == 1879
    assert len(str(error).splitlines()) == 3


def test_notes_share_a_line_as_faults_do():
    notes = [Note("a.csv", f"{count} points left out.", row) for row, count in ((2, 5), (3, 7))]
    assert lines_of(notes) == ["a.csv, rows 2 and 3: 5 and 7 points left out."]
