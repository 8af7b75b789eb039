"""The table of expression: Parquet, CSV or h5ad, samples by genes or genes by samples."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from histoloom.config import Rna
from histoloom.data.csv_table import read_csv_table
from histoloom.data.expression_h5ad import read_h5ad
from histoloom.data.expression_values import check_values
from histoloom.data.found import Found, listed
from histoloom.data.genotype_table import GENE_COLUMNS, column_like, dates_among, plain_name
from histoloom.data.ids import near_duplicates
from histoloom.data.keys import read_keys
from histoloom.errors import Fault, Note, refuse_faults

_NO_GENES = (
    "entrezgeneid", "entrezid", "entrez", "locusid", "cytoband", "chr", "chrom", "chromosome", "start", "end", "strand",
    "length", "genelength", "description", "age", "sex", "gender", "stage", "grade", "label",
)  # fmt: skip
"""Columns of numbers that stand beside expression and are none, as `plain_name` gives them."""
_NO_VALUE = ("", "na", "nan")


def read_expression(config: Rna) -> pd.DataFrame:
    """The expression table, samples by genes, float32, indexed by the ids of `config.key`.

    Raises
    ------
    ManifestFaults
        with every fault found.
    """
    table, found = check_expression(config)
    refuse_faults(found)
    return table


def check_expression(config: Rna) -> tuple[pd.DataFrame | None, list[Fault | Note]]:
    """Read the expression table as far as it goes, with the list of its faults and notes."""
    if config.table is None:
        problem = f"expression is asked for, and {config.section}.table names no table."
        return None, [Fault("params.yaml", problem, "name it.")]
    path, found = Path(config.table), Found(config.table)
    if not path.is_file():
        found.fault("the file is missing.", f"put it there, or mend {config.section}.table.")
        return None, found.all
    if path.suffix.lower() == ".h5ad":
        table, found.all = read_h5ad(config)
    else:
        table, faults = (_read_text if path.suffix.lower() in (".csv", ".tsv", ".txt") else _read_parquet)(config)
        found.all += faults
        if config.layer is not None:
            problem = f"{config.section}.layer is '{config.layer}', and only an h5ad has layers."
            found.fault(problem, "take the key out.")
        found.all += [] if table is None else check_values(table, config)
    if table is None:
        return None, found.all
    table = table.set_axis([str(name).strip() for name in table.columns], axis=1)
    ids, of_keys = read_keys(table.index.tolist(), config)
    table.index = pd.Index(ids, dtype=object)
    found.all += of_keys
    _check_genes(table, found)
    _check_gaps(table, found)
    return table, found.all


def _check_genes(table: pd.DataFrame, found: Found) -> None:
    if unnamed := sum(not name for name in table.columns):
        found.fault(f"{unnamed} gene(s) have no name.", "name them, or remove them.", column="gene")
    if repeated := [name for name, count in Counter(table.columns).items() if count > 1]:
        problem = f"{len(repeated)} gene(s) stand there several times: {listed(repeated)}."
        found.fault(problem, "keep one of each, or add up their counts.", column="gene")
    if alike := near_duplicates(table.columns):
        pairs = listed(f"{name}' and '{first}" for name, first in alike.items())
        fact = "gene(s) may be others, written otherwise, and count as genes of their own"
        found.note(f"{len(alike)} {fact}: {pairs}.")
    for names, kind in ((table.columns, "gene"), (table.index, "sample")):
        if other := [str(name) for name in names if plain_name(str(name)) in _NO_GENES]:
            problem = f"{listed(other)} stands among the {kind}s and is none."
            found.fault(problem, "remove it, so that expression alone is left.", column=other[0])
    if dates := dates_among(table.columns):
        fact = f"a spreadsheet made dates of {len(dates)} gene(s): {listed(dates)}."
        found.note(f"{fact} They won't match other tables' genes.")


def _check_gaps(table: pd.DataFrame, found: Found) -> None:
    finite = np.isfinite(table.to_numpy())
    if finite.all():
        return
    rows = np.flatnonzero(~finite.all(1))
    genes = table.columns[~finite[rows[0]]]
    problem = f"{len(rows)} sample(s) have no number for some genes: {listed(table.index[rows])}; "
    problem += f"the first for {len(genes)} gene(s): {listed(genes)}."
    remedy = "fill in the values (0 for not seen), or remove the samples or the genes."
    found.fault(problem, remedy, column=str(genes[0]))


def _read_text(config: Rna) -> tuple[pd.DataFrame | None, list[Fault]]:
    table, faults = read_csv_table(str(config.table))
    if table.columns.empty:
        return None, faults
    index, problem = _index_column(list(table.columns), config)
    if problem:
        return None, [*faults, problem]
    rest = table.drop(columns=index)
    texts = rest.to_numpy(object)
    values = pd.to_numeric(texts.ravel(), errors="coerce").reshape(texts.shape).astype(np.float32)
    strange: dict[str, list] = {}
    for row, column in np.argwhere(np.isnan(values)):
        if texts[row, column].casefold() not in _NO_VALUE:
            strange.setdefault(rest.columns[column], []).append(texts[row, column])
    if strange:
        return None, faults + _no_numbers(strange, config)
    return _oriented(values, table[index].tolist(), list(rest.columns), index, config), faults


def _read_parquet(config: Rna) -> tuple[pd.DataFrame | None, list[Fault]]:
    where = str(config.table)
    try:
        file = pq.read_table(where)
    except (OSError, ValueError, pa.ArrowException) as error:
        remedy = "save it as Parquet, or name a file that ends in .csv or .h5ad."
        return None, [Fault(where, f"it can't be read as Parquet ({str(error).strip()}).", remedy)]
    index, problem = _index_column(file.column_names, config)
    if problem:
        return None, [problem]
    rest = [i for i, name in enumerate(file.column_names) if name != index]
    text = {file.column_names[i]: file.column(i)[:3].to_pylist() for i in rest if not _is_number(file.column(i).type)}
    if text or not rest:
        return None, _no_numbers(text, config) or [Fault(where, "it has no columns of numbers.", "add them.")]
    values = np.stack([file.column(i).to_numpy().astype(np.float32) for i in rest], 1)
    names = [file.column_names[i] for i in rest]
    return _oriented(values, file.column(index).to_pylist(), names, index, config), []


def _is_number(kind: pa.DataType) -> bool:
    return any(test(kind) for test in (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal))


def _index_column(names: list[str], config: Rna) -> tuple[str, Fault | None]:
    """The column that names the rows, samples or genes."""
    where = str(config.table)
    genes = [name for name in names if plain_name(str(name)) in GENE_COLUMNS]
    if config.key in names and genes:
        problem = f"it has both a column '{config.key}' and a column '{genes[0]}': a row for a value."
        return "", Fault(where, problem, f"pivot it: a row for each {config.key}, and a column a gene.")
    if config.key in names or genes:
        return (config.key if config.key in names else genes[0]), None
    near = column_like(config.key, names)
    hint = f"rename '{near}' to it" if near else "name the column of the samples so"
    problem = f"no column '{config.key}' and no column 'gene'; it begins with {listed(names[:3])}."
    return "", Fault(where, problem, f"{hint}, or that of the genes 'gene', where genes are in rows.", None, config.key)


def _no_numbers(columns: dict[str, list], config: Rna) -> list[Fault]:
    if not columns:
        return []
    name, values = next(iter(columns.items()))
    problem = f"{len(columns)} column(s) hold what is no number: {listed(columns)}; the first {listed(values[:3])}."
    remedy = "remove columns that are no expression, and write numbers with a decimal point."
    return [Fault(str(config.table), problem, remedy, None, name)]


def _oriented(values: np.ndarray, index: list, names: list[str], index_name: str, config: Rna) -> pd.DataFrame:
    """Samples by genes, of either direction."""
    rows = pd.Index(["" if pd.isna(name) else str(name) for name in index], dtype=object)
    table = pd.DataFrame(values, index=rows, columns=names)
    return table if index_name == config.key else table.T
