"""What the values of an expression table are: counts, amounts, logarithms or scores. Logarithms are never taken twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from histoloom.config import Rna
from histoloom.data.found import listed
from histoloom.errors import Fault, Note

Kind = Literal["counts", "amounts", "logarithms", "scores"]
LEAST_AMOUNT = 24.0
"""A value that hardly a logarithm reaches: 2**24 is more than there are transcripts in a million, or reads of a gene."""
_FEW_GENES = 0.01
_WORDS = {
    "counts": "counts (whole numbers)",
    "amounts": "amounts, as TPM or FPKM are",
    "logarithms": "logarithms (no whole numbers, and small)",
    "scores": "scores or logarithms (some are negative)",
}


def normalised(table: pd.DataFrame, transform: str) -> pd.DataFrame:
    """Expression as it is compared between samples: the log of 1 + counts per 10,000, or as it came."""
    if transform == "none":
        return table
    depth = table.sum(axis=1)
    return np.log1p(table.div(depth.where(depth > 0, 1), axis=0) * 1e4)


def kind_of(values: np.ndarray) -> Kind:
    """What (samples, genes) look like: amounts reach LEAST_AMOUNT in more than a few genes."""
    values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    if (values < 0).any():
        return "scores"
    if (values == np.round(values)).all():
        return "counts"
    return "amounts" if (values.max(0) >= LEAST_AMOUNT).mean() > _FEW_GENES else "logarithms"


def check_values(
    table: pd.DataFrame,
    config: Rna,
    source: str | None = None,
    others: Mapping[str, str] | None = None,
    *,
    logged: bool = False,
) -> list[Fault | Note]:
    """Whether the values are what `transform` takes.

    source : what was read of a file that holds several tables, such as X.
    others : name to kind, of what else the file holds.
    logged : whether the file says that these are logarithms (scanpy's uns['log1p']).
    """
    where, kind = str(config.table), kind_of(table.to_numpy())
    name = f"{source} holds" if source else "it holds"
    log = kind in ("scores", "logarithms") or (logged and kind != "counts")
    if config.transform == "none":
        fact = f"{name} {_WORDS[kind]}, and transform: none compares them as they are, whatever the depth."
        return [Note(where, fact)] if kind == "counts" and config.values != "log" else []
    counts = [other for other, its in (others or {}).items() if its == "counts"]
    use = f"set {config.section}.layer: {counts[0]} (counts), or " if counts else ""
    if kind == "scores":
        problem = f"{name} negative values, which are no counts, and transform: log_counts takes their logarithm."
        return [Fault(where, problem, f"{use}set {config.section}.transform: none.")]
    if not log:
        return [*_empty_samples(table, where)]
    said = "logarithms, as the file says (uns['log1p'])" if logged else _WORDS["logarithms"]
    if config.values == "linear":
        fact = f"{name} what looks like {said}; values: linear says otherwise."
        return [Note(where, fact), *_empty_samples(table, where)]
    problem = f"{name} what looks like {said}, and transform: log_counts would take logarithms again."
    remedy = f"{use}set {config.section}.transform: none; "
    return [Fault(where, problem, f"{remedy}where they are counts or amounts after all, set values: linear.")]


def _empty_samples(table: pd.DataFrame, where: str) -> list[Note]:
    empty = table.index[~(table.to_numpy() > 0).any(1)]
    return [Note(where, f"{len(empty)} sample(s) have no counts at all: {listed(empty)}.")] if len(empty) else []
