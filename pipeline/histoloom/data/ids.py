"""Ids as people and spreadsheets write them: which can name a folder, which are damaged, and which may be one id written twice."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

MAX_BYTES = 180
"""Of a slide's id in UTF-8. File systems allow 255; the names of parts and tiles add up to 60 to it."""

_SPREADSHEET = "write it as it was, and format the column as text before typing or importing it."
_MONTH = (  # in English, German, French, Spanish, Italian, Dutch and Portuguese
    "janv?|ene|jän|feb|fev|févr|mars?|mrz|märz?|mrt|apr|avr|abr|may|mai|mag|mei|jun|juin|juni|giu|jul|juil|juli|lug|aug|août"
    "|ago|sept?|o[ck]t|ott|nov|d[eé]c|dez|dic"
)
_MADE_DATE = (
    rf"(?i:\d{{1,2}}(\. ?|[-/ ])({_MONTH}|gen|set|out)\.?([-/ .]\d{{2,4}})?)"
    rf"|(?![A-Z]{{2}})(?i:{_MONTH})\.?[-/ ]\d\d|\d{{4}}-\d\d-\d\d 00:00:00"
)
"""As spreadsheets write 1-Mar, 01. Mrz or Mrz 22. `set-12` and `MAR-12` are taken for ids that people gave."""
_ERROR = r"#+|#\S*[!?]|#[^\W\d]/[^\W\d]|#(NV|YOK|GETTING_DATA)|Err:\d{3}"
_DAMAGED = {
    r"\d([.,]\d+)?[eE][+-]\d+": "is a number as spreadsheets shorten it",
    _MADE_DATE: "is a date as spreadsheets make it of an id",
    _ERROR: "is a spreadsheet's error",
}
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d{1,2}[./]\d{1,2}[./]\d{2,4}")
_MISSING = {
    "nan", "na", "n/a", "n.a.", "n.a", "n/d", "n.d.", "none", "null", "nil", "<na>", "nat", "-", "--", "?", ".", "unknown", "tbd",
    "missing", "not available",
}  # fmt: skip
_NULLS = {"NA", "N/A", "n/a", "NaN", "nan", "<NA>", "NaT", "None", "NULL", "null"}
_MORE_DASHES = "\u2212\u2043"  # the minus sign and the hyphen bullet
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}


def damage(text: str) -> tuple[str, str] | None:
    """Problem and remedy of an id that is none: what a spreadsheet made of one, or a word for a missing one."""
    for pattern, kind in _DAMAGED.items():
        if re.fullmatch(pattern, text):
            return f"'{text}' {kind}.", _SPREADSHEET
    if is_missing(text):
        return f"'{text}' stands for a missing id.", "fill it in: items that share it would count as one."
    return None


def is_missing(text: str) -> bool:
    """Whether a text is a word for no value, or what a spreadsheet writes where it has none."""
    return text.casefold() in _MISSING or re.fullmatch(_ERROR, text) is not None


def is_null(text: str) -> bool:
    """Whether a program wrote a text where it had no value. A person's word, such as 'unknown', may be meant."""
    return text in _NULLS or re.fullmatch(_ERROR, text) is not None


def looks_like_date(text: str) -> bool:
    return _DATE.fullmatch(text) is not None


def made_a_date(text: str) -> bool:
    """Whether a text is what a spreadsheet makes of a name such as SEPT2."""
    return re.fullmatch(_MADE_DATE, text) is not None


def folder_problem(text: str) -> tuple[str, str] | None:
    """Problem and remedy of an id that can't name a folder on every file system."""
    if unicodedata.normalize("NFC", text) != text:
        return f"'{text}' has letters apart from their accents.", "write it in Unicode's composed form (NFC)."
    if not all(c.isalnum() or c in "-_." for c in text) or text.startswith(".") or text.endswith("."):
        return f"'{text}' can't name a folder.", "use letters, digits, '-', '_' and, between them, '.'."
    if text.split(".")[0].casefold() in _RESERVED:
        return f"'{text}' can't name a folder on Windows, which reserves it.", "add something to it."
    if len(text.encode()) > MAX_BYTES:
        return f"'{text[:20]}...' has {len(text.encode())} bytes.", f"use at most {MAX_BYTES}: it names files."
    return None


def canonical(text: str) -> str:
    """What remains of an id without case, blanks, Unicode form, kinds of dashes, and what spreadsheets do to whole numbers."""
    plain = _plain(_plain(text))  # what is left of a letter and its accent may join
    number = re.fullmatch(r"0*([0-9]+)(\.0*)?", plain)
    return number[1] if number else plain


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    dashed = ("-" if unicodedata.category(c) == "Pd" or c in _MORE_DASHES else c for c in folded)
    return "".join(c for c in dashed if not c.isspace() and unicodedata.category(c) != "Cf")


def near_duplicates(texts: Iterable[str]) -> dict[str, str]:
    """Spelling to the earlier spelling that it may be another form of."""
    first: dict[str, str] = {}
    found = {}
    for text in dict.fromkeys(texts):
        before = first.setdefault(canonical(text), text)
        if before != text:
            found[text] = before
    return found


def folder_ids(names: Iterable[str]) -> list[str]:
    """An id for each file's name: one that can name a folder, and is no other form of those before it."""
    forms: set[str] = set()
    out = []
    for name in names:
        text = first = _folder_id(name)
        number = 2
        while canonical(text) in forms:
            text, number = f"{first}_{number}", number + 1
        forms.add(canonical(text))
        out.append(text)
    return out


def _folder_id(name: str) -> str:
    joined = re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", name)).strip("._-") or "slide"
    text = "".join(c if c.isalnum() or c in "-_." else "_" for c in joined)
    text = text.encode()[: MAX_BYTES - 20].decode(errors="ignore").rstrip(".")
    return f"slide_{text}" if damage(text) or folder_problem(text) else text
