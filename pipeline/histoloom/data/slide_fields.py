"""What slides.csv says of a slide in columns of the user's own, as rows carry it: JSON of column to value."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping

import pandas as pd

from histoloom.errors import HistoloomError

COLUMN = "slide_fields"


def written(fields: Mapping[str, object]) -> str:
    """The text that `parsed` reads, the same for the same fields."""
    return json.dumps(dict(fields), sort_keys=True, ensure_ascii=False)


def parsed(text: str | None) -> dict[str, object]:
    """Column to value; of None or a missing value, nothing is known."""
    return json.loads(text) if isinstance(text, str) and text else {}


def chosen(rows: pd.DataFrame, columns: Collection[str]) -> Iterable[dict[str, object]]:
    """Of each row, the fields of these columns.

    Raises
    ------
    HistoloomError
        for rows of a store that was cut before rows carried them.
    """
    if COLUMN not in rows:
        raise HistoloomError("These tiles were cut before rows carried the columns of slides.csv. Run: dvc repro tile")
    for text in rows[COLUMN]:
        yield {name: value for name, value in parsed(text).items() if name in columns}
