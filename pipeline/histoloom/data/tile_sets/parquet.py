"""Parquet files of encoded pictures, as bytes or as Hugging Face's {bytes, path}."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from histoloom.config import TileSet
from histoloom.data.tile_sets.listing import Listing, NotListed, rows_of, texts, their_column

_BATCH = 256


def list_parquet(config: TileSet, files: list[Path]) -> Listing:
    """The rows of Parquet files, in their order."""
    found: list[tuple[list[str], pd.DataFrame, bool]] = []
    label_names: tuple[str, ...] = ()
    for path in files:
        try:
            stored = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise NotListed(f"{path.name} is no Parquet file ({error}).", "copy it again.") from None
        schema = stored.schema_arrow
        image, mask = (their_column(config, ours, schema.names) for ours in ("image", "mask"))
        for column, ours in [(image, "image")] + [(mask, "mask")] * (mask is not None):
            _check_kind(path, schema, column, ours)
        try:
            table = _without_pictures(stored, schema, image)
        except (pa.ArrowException, OSError) as error:
            raise NotListed(f"{path.name} breaks off or is damaged ({error}).", "copy it again.") from None
        stems = [PurePosixPath(text).with_suffix("").as_posix() if text else "" for text in table.pop("image.path")]
        unique = all(stems) and len({*stems}) == len(stems)
        keys = stems if unique else [f"{row}" for row in range(len(table))]
        found.append((keys, table, mask is not None))
        label_names = label_names or _class_names(schema, their_column(config, "label", schema.names))
    if not any(keys for keys, _, _ in found):
        raise NotListed("it has no rows.", "name files that hold pictures.")
    return rows_of(config, files, found, label_names)


def _check_kind(path: Path, schema: pa.Schema, column: str | None, ours: str) -> None:
    if column is None or column not in schema.names:
        has = ", ".join(f"{field.name} ({field.type})" for field in schema)
        name = "image" if column is None else column
        raise NotListed(f"{path.name} has no column '{name}': it has {has}.", f"name it: columns: {{{ours}: ...}}.")
    kind, remedy = schema.field(column).type, "it must hold encoded pictures: bytes, or {bytes, path}."
    if not _is_bytes(kind) and not (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0):
        raise NotListed(f"{path.name}: column '{column}' is {kind}.", remedy)


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _without_pictures(stored: pq.ParquetFile, schema: pa.Schema, image: str | None) -> pd.DataFrame:
    """Columns of plain values as text, and `image.path` of the pictures."""
    plain = [field.name for field in schema if not (pa.types.is_nested(field.type) or _is_bytes(field.type))]
    kind = schema.field(image).type
    has_path = pa.types.is_struct(kind) and kind.get_field_index("path") >= 0
    table = stored.read(columns=plain + ([f"{image}.path"] if has_path else []))
    out = pd.DataFrame({name: texts(table[name].to_pylist()) for name in plain}, index=range(table.num_rows))
    paths = [(value or {}).get("path") for value in table[image].to_pylist()] if has_path else [""] * table.num_rows
    out["image.path"] = texts(paths)
    return out


def _class_names(schema: pa.Schema, column: str | None) -> tuple[str, ...]:
    """What Hugging Face's datasets writes beside a column of class labels."""
    try:
        facts = json.loads((schema.metadata or {})[b"huggingface"])
        return tuple(facts["info"]["features"][column]["names"])
    except (KeyError, TypeError, ValueError):
        return ()


def column_names(path: Path) -> list[str]:
    return pq.read_schema(path).names


def read_rows(path: Path, rows: np.ndarray, columns: tuple[str, ...]) -> Iterator[tuple[bytes | None, ...]]:
    """The encoded pictures of these rows, sorted, a tuple of the columns' each; groups that hold none are not read."""
    stored = pq.ParquetFile(path)
    start = 0
    for group in range(stored.num_row_groups):
        end = start + stored.metadata.row_group(group).num_rows
        inside = rows[(rows >= start) & (rows < end)] - start
        if len(inside):
            yield from _of_group(stored, group, inside, columns)
        start = end


def _of_group(stored: pq.ParquetFile, group: int, rows: np.ndarray, columns: tuple[str, ...]) -> Iterator:
    start = 0
    for batch in stored.iter_batches(_BATCH, row_groups=[group], columns=[*columns]):
        inside = rows[(rows >= start) & (rows < start + batch.num_rows)] - start
        start += batch.num_rows
        if len(inside):
            taken = batch.take(pa.array(inside))
            yield from zip(*([_bytes(value) for value in taken[name].to_pylist()] for name in columns))
        if len(rows) and start > rows[-1]:
            return


def _bytes(value: bytes | dict | None) -> bytes | None:
    return value["bytes"] if isinstance(value, dict) else value
