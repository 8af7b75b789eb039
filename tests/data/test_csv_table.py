"""Tables as spreadsheets export them: the same values, or one fault with the line that an editor shows."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from histoloom.data.csv_table import as_number, read_csv_table


def _table(tmp_path, content: bytes | str):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_csv_table(path)


PLAIN = "id,n\na,1\nb,2\n"


@pytest.mark.parametrize(
    "content, rows",
    [
        (PLAIN, [2, 3]),
        (PLAIN.replace("\n", "\r\n"), [2, 3]),
        (PLAIN.replace("\n", "\r"), [2, 3]),
        ("\ufeff" + PLAIN, [2, 3]),
        (PLAIN.replace(",", ";"), [2, 3]),
        (PLAIN.replace(",", "\t"), [2, 3]),
        ("id,n,,\na,1,,\nb,2,,\n", [2, 3]),
        ("id,n\na,1,\nb,2,,,\n", [2, 3]),
        ("id,n\n\na,1\n,\n  \nb,2\n,,,\n", [3, 6]),
        ("\n,,\nid,n\na,1\nb,2", [4, 5]),
        (" id , n \n a ,\t1\n b\u00a0, 2\n", [2, 3]),
        ('"id","n"\n"a", "1"\nb,2\n', [2, 3]),
        ("sep=;\nid;n\na;1\nb;2\n", [3, 4]),
        ("id,,n\na,,1\nb,,2\n", [2, 3]),
    ],
)
def test_forms_of_one_table_are_read_alike(tmp_path, content, rows):
    table, faults = _table(tmp_path, content)
    assert faults == [] and table.to_dict("list") == {"id": ["a", "b"], "n": ["1", "2"]}
    assert table.index.tolist() == rows


def test_decimal_commas_between_semicolons_stay_as_they_are_written(tmp_path):
    table, faults = _table(tmp_path, "id;mpp;note, if any\na;0,25;\nb;0,5;x\n")
    assert faults == [] and table["mpp"].tolist() == ["0,25", "0,5"]


def test_a_quoted_line_break_counts_as_an_editor_counts_it(tmp_path):
    table, faults = _table(tmp_path, 'id,n\na,"one\ntwo, ""three"""\nb,2\nc\n')
    assert table["n"].tolist() == ['one\ntwo, "three"', "2"] and table.index.tolist() == [2, 4]
    assert [fault.row for fault in faults] == [5]


@pytest.mark.parametrize(
    "content, row, problem, remedy",
    [
        ("", None, "empty", "header line"),
        ("\n,,\n", None, "empty", "header line"),
        ("id,n\n", 1, "no rows", "add a row"),
        ("My slides\nid,n\n", 2, "2 value(s), and the header 1 name(s)", "remove a title"),
        ("id,n\na,1\nb\n", 3, "1 value(s), and the header 2 name(s)", "every value"),
        ("id,n\na,1\nb,2,3\n", 3, "3 value(s), and the header 2 name(s)", "quotes"),
        ("id,mpp\na,0,25\n", 2, "3 value(s)", "0.25, not 0,25"),
        ("id,n,id\na,1,b\n", 1, "2 columns have this name", "rename"),
        (",id,n\n0,a,1\n", 1, "column 1 has values and no name", "index=False"),
        ('id,n\n\na,"1\nb,2\n', 3, "quotes", "close the quote"),
        ('id,n\na,1\nb,"2"3\n', 3, "quotes", "double a quote"),
        ("id,n;m\na,1;2\n", 1, "commas and semicolons", "quotes"),
        ('"id,n"\n"a,1"\n', 1, "one quoted value", "whole lines"),
        ("id,n\na,1\nb,\0\n", 3, "NUL", "UTF-8"),
        ("id,n\r\na,1\r\nb,é\r\n".encode("latin-1"), 3, "0xE9 is not UTF-8", "UTF-8"),
        (PLAIN.encode("utf-16"), None, "UTF-16", "UTF-8"),
        (PLAIN.encode("utf-16-le"), 1, "UTF-16 without its mark", "UTF-8"),
        (b"PK\x03\x04rest", None, "an Excel workbook", "CSV UTF-8"),
    ],
)
def test_what_cannot_be_read_exactly_is_one_fault(tmp_path, content, row, problem, remedy):
    _, (fault,) = _table(tmp_path, content)
    assert fault.row == row and problem in fault.problem and remedy in fault.remedy


def test_files_that_are_not_there(tmp_path):
    assert "missing" in read_csv_table(tmp_path / "gone.csv")[1][0].problem
    assert "can't be read" in read_csv_table(tmp_path)[1][0].problem


_VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)


@given(
    rows=st.lists(st.lists(_VALUES, min_size=3, max_size=3), min_size=1, max_size=6),
    separator=st.sampled_from(",;\t"),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.sampled_from(["", "\ufeff"]),
)
def test_what_a_writer_quotes_comes_back(tmp_path_factory, rows, separator, end, mark):
    assume(any(value.strip() for row in rows for value in row))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["id", "x", "y"], *rows])
    table, faults = _table(tmp_path_factory.mktemp("csv"), mark + text.getvalue())
    stripped = [[value.strip() for value in row] for row in rows]
    assert faults == [] and table.to_numpy().tolist() == [row for row in stripped if any(row)]


def test_a_report_of_any_length_is_one_value(tmp_path):
    table, faults = _table(tmp_path, f'id,report\na,"{"x" * 200_000}"\n')
    assert faults == [] and len(table["report"].iloc[0]) == 200_000


@pytest.mark.parametrize("text, number", [("0.25", 0.25), ("-.5", -0.5), ("1e-3", 1e-3), ("12.", 12.0)])
def test_numbers_are_exact(text, number):
    assert as_number(text) == number


@pytest.mark.parametrize(
    "text, problem",
    [("0,25", "write 0.25"), ("1_000", "no number"), ("nan", "no number"), ("", "no number"), ("٣", "no number")],
)
def test_what_is_no_number_is_said(text, problem):
    with pytest.raises(ValueError, match=problem):
        as_number(text)
