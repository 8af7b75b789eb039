"""Expression of an h5ad file: X, a layer or raw, whichever holds what `transform` takes or params name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from histoloom.config import Rna
from histoloom.data.expression_values import check_values, kind_of
from histoloom.data.found import listed
from histoloom.errors import Fault, Note, with_extra

_X, _RAW = "X", "raw"
_ROWS = 200
"""So many of a matrix tell what its values are."""


def read_h5ad(config: Rna) -> tuple[pd.DataFrame | None, list[Fault | Note]]:
    """Samples by genes, with faults: of the file, of the layer, and of values that are not what `transform` takes."""
    where = str(config.table)
    try:
        import anndata
    except ImportError:
        remedy = f"{with_extra('h5ad')}, or save it as Parquet."
        return None, [Fault(where, "reading it needs anndata.", remedy)]
    try:
        data = anndata.read_h5ad(where)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        return None, [Fault(where, f"it can't be read as h5ad ({str(error).strip()}).", "save it again with anndata.")]
    held = _held(data)
    source = config.layer or _X
    if source not in held:
        names = listed(held) or "nothing"
        remedy = f"set {config.section}.layer to one of them." if held else "save it with expression."
        return None, [Fault(where, f"it has no {_called(source)}; it holds {names}.", remedy)]
    table = _table(data, source, config.key)
    some = {name: matrix[:: max(1, matrix.shape[0] // _ROWS)] for name, matrix in held.items() if name != source}
    others = {name: kind_of(_dense(matrix)) for name, matrix in some.items()}
    logged = "log1p" in data.uns and source in (_X, _RAW)
    return table, check_values(table, config, _called(source), others, logged=logged)


def _called(source: str) -> str:
    return source if source in (_X, _RAW) else f"layer '{source}'"


def _held(data) -> dict[str, Any]:
    """Name to matrix, of all that the file holds."""
    held = {_X: data.X} | dict(data.layers) | {_RAW: None if data.raw is None else data.raw.X}
    return {name: matrix for name, matrix in held.items() if matrix is not None}


def _table(data, source: str, key: str) -> pd.DataFrame:
    matrix = _held(data)[source]
    genes = data.raw.var_names if source == _RAW else data.var_names
    keys = data.obs.get(key, data.obs_names)
    index = pd.Index(list(keys), dtype=object)
    return pd.DataFrame(_dense(matrix).astype(np.float32), index=index, columns=list(genes))


def _dense(matrix) -> np.ndarray:
    return matrix.toarray() if hasattr(matrix, "toarray") else np.asarray(matrix)
