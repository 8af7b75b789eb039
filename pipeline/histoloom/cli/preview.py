"""`histoloom preview`: a contact sheet of any store."""

from __future__ import annotations

from pathlib import Path

from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.errors import HistoloomError
from histoloom.report.pictures import contact_sheet


def write_preview(
    store: Path, rows_from: Path | None, where: tuple[str, ...], count: int, output: Path
) -> tuple[int, int]:
    """Write the sheet; returns how many tiles are shown, and of how many.

    Raises
    ------
    HistoloomError
        for a column that isn't there, or when no tile matches.
    """
    tiles = TileStore(store, rows_from)
    rows = tiles.rows()
    for clause in where:
        column, found, value = clause.partition("=")
        if not found or column not in rows.columns:
            columns = ", ".join(rows.columns)
            raise HistoloomError(f"'{clause}' is not COLUMN=VALUE with a column of this store: {columns}.")
        rows = rows[rows[column].astype(str) == value]
    if rows.empty:
        raise HistoloomError(f"No tile of {store} matches {' and '.join(where)}.")
    shown = spread(rows, count)
    captions = shown["label"].fillna("unlabelled").astype(str).tolist()
    output.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(tiles.read(shown), captions=captions).save(output)
    return len(shown), len(rows)
