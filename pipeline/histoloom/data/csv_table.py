"""Tables of text as people and spreadsheets export them: read exactly, or refused with the line that an editor shows."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from histoloom.errors import Fault

csv.field_size_limit(2**31 - 1)  # Python's own, 131,072 characters, is less than a report may have
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SAVE_AS = "save it as comma-separated text in UTF-8 (in Excel: 'CSV UTF-8 (Comma delimited)')."
_OTHER_FILES = {
    b"PK\x03\x04": "an Excel workbook or a ZIP archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"\x1f\x8b": "compressed by gzip",
    b"PAR1": "a Parquet file",
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?", re.ASCII)


class _Unreadable(Exception):
    """A table that can't be read at all: its problem, its remedy and, where one line is to blame, that line."""


class _Line(NamedTuple):
    """A row's values without blanks around them, and the line of the file on which it begins."""

    row: int
    values: list[str]


def read_csv_table(path: Path | str) -> tuple[pd.DataFrame, list[Fault]]:
    """Read a table of text, with the list of its faults.

    Commas, semicolons or tabs separate values; the header tells which. Blanks around names and values, empty rows, and
    empty columns without a name don't count. A row that has a fault is left out.

    Returns
    -------
    The values as text, empty where there is none. The index holds the line on which each row begins, as an editor counts
    them; `attrs["header_row"]` is the header's. Without columns where nothing could be read.
    """
    path = Path(path)
    try:
        return _read(path)
    except _Unreadable as error:
        problem, remedy, *row = error.args
        return _frame([], [], 1), [Fault(str(path), problem, remedy, *row)]


def check_columns(
    where: str, table: pd.DataFrame, required: tuple[str, ...], optional: tuple[str, ...]
) -> Iterator[Fault]:
    """Faults of columns that are missing, or that nobody reads; names that begin with meta_ are free."""
    row, known = table.attrs["header_row"], required + optional
    for column in table.columns:
        if column not in known and not column.startswith("meta_"):
            near = difflib.get_close_matches(re.sub(r"\W+", "_", column.casefold()), known, 1)
            hint = f"rename it to '{near[0]}'" if near else "remove it"
            yield Fault(where, "unknown column.", f"{hint}, or begin its name with meta_ to keep it.", row, column)
    for column in required:
        if column not in table.columns:
            yield Fault(where, "the column is missing.", "add it.", row, column)


def as_number(text: str) -> float:
    """The number that a text states with a decimal point; no other form is taken.

    Raises
    ------
    ValueError
        with a problem that fits into a fault.
    """
    if _NUMBER.fullmatch(text):
        if math.isinf(float(text)):
            raise ValueError(f"'{text}' is too large.")
        return float(text)
    if _DECIMAL_COMMA.fullmatch(text):
        raise ValueError(f"'{text}' has a decimal comma: write {text.replace(',', '.')}.")
    raise ValueError(f"'{text}' is no number.")


def number_fault(text: str) -> str | None:
    """Why `as_number` does not take a text; None for one that it takes."""
    try:
        as_number(text)
    except ValueError as error:
        return str(error)
    return None


def _read(path: Path) -> tuple[pd.DataFrame, list[Fault]]:
    text = _decoded(path)
    stated = re.match(r"\s*\"?sep=(.)\"?[,;\t]*\s*?[\r\n]", text, re.IGNORECASE)  # as Excel writes and reads it
    separator = stated[1] if stated else _separator(text)
    lines = [line for line in _lines(text, separator) if any(line.values)][1 if stated else 0 :]
    if not lines:
        raise _Unreadable("it is empty.", "write a header line, and a row for each item.")
    header, *rows = lines
    names = _trimmed(header.values)
    faults = [*_faults_of_names(str(path), _Line(header.row, names), rows)]
    whole = []
    for line in rows:
        if len(line.values) < len(names) or any(line.values[len(names) :]):
            faults.append(_of_other_width(str(path), line, len(names)))
        else:
            whole.append(line)
    if not rows:
        faults.append(Fault(str(path), "it has no rows.", "add a row for each item.", header.row))
    return _frame(names, whole, header.row), faults


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise _Unreadable("the file is missing.", "put it there, or mend its path in params.yaml.") from None
    except OSError as error:
        raise _Unreadable(f"it can't be read ({error.strerror}).", "name a file that you may read.") from None
    for beginning, kind in _OTHER_FILES.items():
        if content.startswith(beginning):
            raise _Unreadable(f"it is {kind}, not a table of text.", _SAVE_AS)
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise _Unreadable("its text is UTF-16.", _SAVE_AS)
    if b"\0" in content:
        row = _row_of(content, content.index(b"\0"))
        raise _Unreadable("it holds a NUL byte: it is UTF-16 without its mark, or damaged.", _SAVE_AS, row)
    try:
        return content.decode("utf-8").lstrip("\ufeff")
    except UnicodeDecodeError as error:
        problem = f"byte 0x{content[error.start]:02X} is not UTF-8: the text may be Latin-1 or Windows-1252."
        raise _Unreadable(problem, _SAVE_AS, _row_of(content, error.start)) from None


def _row_of(content: bytes, place: int) -> int:
    return len(re.findall(rb"\r\n?|\n", content[:place])) + 1


def _separator(text: str) -> str:
    """The one that the header holds; of several, the one that gives most columns and rows all as wide as the header."""
    header = next((line for line in io.StringIO(text, newline="") if line.strip(' \t\r\n,;"')), "")
    held = [mark for mark in _SEPARATORS if mark in re.sub(r'"[^"]*"', "", header)]
    if not held and any(mark in header for mark in _SEPARATORS):
        raise _Unreadable("each line is one quoted value.", "save it without quotes about whole lines.", 1)
    if len(held) < 2:
        return held[0] if held else ","
    widths = {mark: _even_width(text, mark) for mark in held}
    best = [mark for mark in held if widths[mark] == max(widths.values()) > 1]
    if len(best) != 1:
        found = " and ".join(_SEPARATORS[mark] for mark in held)
        remedy = "separate by commas alone, and put quotes about a value that holds one."
        raise _Unreadable(f"its header holds {found}, and either may separate columns.", remedy, 1)
    return best[0]


def _even_width(text: str, separator: str) -> int:
    """How many columns it gives, if to all rows alike; else 0."""
    try:
        lines = [line for line in _lines(text, separator) if any(line.values)]
    except _Unreadable:
        return 0
    width = len(_trimmed(lines[0].values))
    return width if all(len(line.values) >= width and not any(line.values[width:]) for line in lines) else 0


def _lines(text: str, separator: str) -> Iterator[_Line]:
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t", strict=True
    )
    begins = 1
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            problem = f"the quotes of the row that begins here can't be read ({error})."
            raise _Unreadable(problem, "close the quote; double a quote inside a quoted value.", begins) from None
        yield _Line(begins, [value.strip() for value in values])
        begins = reader.line_num + 1


def _trimmed(values: list[str]) -> list[str]:
    """Without the empty ones at the end."""
    width = max((place for place, value in enumerate(values, 1) if value), default=0)
    return values[:width]


def _faults_of_names(where: str, header: _Line, rows: list[_Line]) -> Iterator[Fault]:
    for name, count in Counter(filter(None, header.values)).items():
        if count > 1:
            yield Fault(where, f"{count} columns have this name.", "keep one, or rename the others.", header.row, name)
    for place, name in enumerate(header.values):
        if not name and any(line.values[place : place + 1] > [""] for line in rows):
            problem = f"column {place + 1} has values and no name."
            remedy = "name it, or remove it (pandas writes no such column with to_csv(index=False))."
            yield Fault(where, problem, remedy, header.row)


def _of_other_width(where: str, line: _Line, width: int) -> Fault:
    problem = f"the row has {len(line.values)} value(s), and the header {width} name(s)."
    if len(line.values) < width:
        return Fault(where, problem, "write every value, or nothing between two separators.", line.row)
    if width == 1:
        return Fault(where, problem, "begin with the header: remove a title or comment above it.", line.row)
    remedy = "put quotes about a value that holds a separator, and write decimals with a point: 0.25, not 0,25."
    return Fault(where, problem, remedy, line.row)


def _frame(names: list[str], lines: list[_Line], header_row: int) -> pd.DataFrame:
    """A column for each name; of columns of one name, the first."""
    places = {name: place for place, name in reversed([*enumerate(names)]) if name}
    columns = {name: [line.values[places[name]] for line in lines] for name in names if name}
    table = pd.DataFrame(columns, index=pd.Index([line.row for line in lines], dtype=int), dtype=object)
    table.attrs["header_row"] = header_row
    return table
