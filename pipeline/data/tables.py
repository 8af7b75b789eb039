"""Tables of what is known of a patient, a slide or a spot beside the picture: expression and genotype."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Genotype, Params, Rna
from pipeline.data.genotype import WILD_TYPE, write_genotype
from pipeline.errors import Fault, HistoloomError, ManifestFaults

_GENE_COLUMNS = ("gene", "gene_id", "gene_name", "symbol")
_CHANGE = re.compile(r"(p\.)?[A-Z*]\d+\S*$")  # R175H, W91*, P77Gfs*65, E746_A750del
_SHOWN = 5


def read_expression(config: Rna) -> pd.DataFrame:
    """The expression table, samples by genes, float32, indexed by `config.key`.

    Raises
    ------
    ManifestFaults
        with every fault found.
    """
    return _faultless(*check_expression(config))


def _faultless(table, faults: list[Fault]):
    if faults:
        raise ManifestFaults(faults)
    return table


def check_expression(config: Rna) -> tuple[pd.DataFrame | None, list[Fault]]:
    """Read the expression table as far as it goes, with the list of its faults."""
    where = config.table or "params.yaml"
    if config.table is None:
        return None, [Fault(where, "'rna' is a condition, and train_encoders.rna.table names no table.", "name it.")]
    if not Path(where).is_file():
        return None, [Fault(where, "the file is missing.", "put it there, or mend train_encoders.rna.table.")]
    try:
        table = _read_h5ad(Path(where), config.key) if where.endswith(".h5ad") else _read_parquet(Path(where), config)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        remedy = f"save samples by genes with a column '{config.key}', or genes by samples with a column 'gene'."
        return None, [Fault(where, f"it can't be read as expression ({error}).", remedy)]
    faults = [
        Fault(where, f"{kind} '{name}' stands there {count} times.", "keep one, or add up their counts.", None, column)
        for kind, names, column in (("gene", table.columns, "gene"), ("sample", table.index, config.key))
        for name, count in Counter(names).items()
        if count > 1
    ]
    values = table.to_numpy()
    for row in np.flatnonzero(~np.isfinite(values).all(1))[:_SHOWN]:
        bad = table.columns[~np.isfinite(values[row])]
        faults.append(
            Fault(
                where,
                f"sample '{table.index[row]}' has no number for {len(bad)} gene(s).",
                "fill in the values (0 for not seen), or remove the sample or the genes.",
                int(row) + 1,
                str(bad[0]),
            )
        )
    if config.transform == "log_counts" and np.nanmin(values, initial=0) < 0:
        faults.append(
            Fault(where, "it has negative values, which are no counts.", "set train_encoders.rna.transform: none.")
        )
    return table, faults


def _read_parquet(path: Path, config: Rna) -> pd.DataFrame:
    file = pq.read_table(path)
    index = next((c for c in (config.key, *_GENE_COLUMNS) if c in file.column_names), None)
    if index is None:
        raise KeyError(f"no column '{config.key}' and no column 'gene'")
    rest = [i for i, name in enumerate(file.column_names) if name != index]
    values = np.stack([file.column(i).to_numpy().astype(np.float32) for i in rest], 1)
    names = [file.column_names[i] for i in rest]
    table = pd.DataFrame(values, index=pd.Index(file.column(index).to_pylist(), dtype=str), columns=names)
    return table if index == config.key else table.T


def _read_h5ad(path: Path, key: str) -> pd.DataFrame:
    try:
        import anndata
    except ImportError:
        raise HistoloomError(f"{path} needs anndata: pip install 'histoloom[h5ad]', or save it as Parquet.") from None
    data = anndata.read_h5ad(path)
    names = data.obs[key].astype(str) if key in data.obs else data.obs_names
    values = data.X.toarray() if hasattr(data.X, "toarray") else np.asarray(data.X)
    return pd.DataFrame(values.astype(np.float32), index=pd.Index(list(names)), columns=list(data.var_names))


def normalised(table: pd.DataFrame, transform: str) -> pd.DataFrame:
    """Expression as it is compared between samples: the log of 1 + counts per 10,000, or as it came."""
    if transform == "none":
        return table
    depth = table.sum(axis=1).clip(lower=1)
    return np.log1p(table.div(depth, axis=0) * 1e4)


def read_genotype(config: Genotype) -> pd.Series:
    """Genotypes as text (see data/genotype.py), indexed by `config.key`.

    Raises
    ------
    ManifestFaults
        with every fault found.
    """
    return _faultless(*check_genotype(config))


def check_genotype(config: Genotype) -> tuple[pd.Series | None, list[Fault]]:
    """Read the genotype table as far as it goes, with the list of its faults."""
    where = config.table or "params.yaml"
    if config.table is None:
        return None, [
            Fault(where, "'genotype' is a condition, and train_encoders.genotype.table names no table.", "name it.")
        ]
    try:
        table = pd.read_csv(where, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        return None, [Fault(where, "the file is missing.", "put it there, or mend train_encoders.genotype.table.")]
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        return None, [Fault(where, f"it is not a readable CSV ({error}).", "save it as UTF-8 with a header line.")]
    wanted = config.columns or tuple(c for c in table.columns if c != config.key)
    faults = [
        Fault(where, "the column is missing.", "add it, or mend params.", 1, column)
        for column in (config.key, *wanted)
        if column not in table.columns
    ]
    if faults:
        return None, faults
    for row in np.flatnonzero(table[config.key].duplicated()):
        problem = f"'{table[config.key].iloc[row]}' stands above already."
        faults.append(Fault(where, problem, "keep one row for each.", int(row) + 2, config.key))
    texts = []
    for number, row in enumerate(table.to_dict("records"), 2):
        states = {}
        for marker in wanted:
            state = _state(row[marker].strip(), config)
            if state is None:
                faults.append(_unknown_value(where, row[marker], number, marker))
            elif state:
                states[marker] = state
        texts.append(write_genotype(states))
    return pd.Series(texts, index=table[config.key], dtype=object), faults


def _state(value: str, config: Genotype) -> str | None:
    """The state that a value means; '' for not tested, None for a value that means nothing."""
    if value in config.not_tested:
        return ""
    if value in config.wild_type:
        return WILD_TYPE
    for state, values in config.altered.items():
        if value in values:
            return state
    if value and all(_CHANGE.match(part) and not part.endswith("=") for part in value.split()):
        return next(iter(config.altered))
    if value and all(_CHANGE.match(part) for part in value.split()):
        return WILD_TYPE  # a silent change, such as T125=
    return None


def _unknown_value(where: str, value: str, row: int, marker: str) -> Fault:
    return Fault(
        where,
        f"'{value}' is neither wild type, nor an alteration, nor 'not tested'.",
        "mend it, or add it to train_encoders.genotype.wild_type, altered or not_tested.",
        row,
        marker,
    )


def check_tables(params: Params) -> list[Fault]:
    """Faults of the tables that the conditions in use need."""
    config, names = params.train_encoders, params.train_denoiser.conditions
    faults = check_expression(config.rna)[1] if "rna" in names else []
    return faults + (check_genotype(config.genotype)[1] if "genotype" in names else [])


def with_conditions(rows: pd.DataFrame, params: Params) -> pd.DataFrame:
    """Add to real rows the columns `rna` (the key of its profile) and `genotype` (text), empty where not in use."""
    names, config = params.train_denoiser.conditions, params.train_encoders
    rna = rows[config.rna.key] if "rna" in names else None
    genotype = None
    if "genotype" in names:
        genotype = rows[config.genotype.key].map(read_genotype(config.genotype)).astype(object)
    return rows.assign(rna=rna, genotype=genotype)
