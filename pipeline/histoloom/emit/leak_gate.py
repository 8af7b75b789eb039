"""The gate before a dataset leaves: no synthetic tile whose ancestors touch a held-out group."""

from __future__ import annotations

import pandas as pd

from histoloom.data.lineage_match import recognise
from histoloom.errors import HistoloomError


def check_ancestors(
    synthetic: pd.DataFrame,
    lineage: dict[str, dict],
    real: pd.DataFrame,
    *,
    allow_unknown: bool,
    salt: bytes | None = None,
    grid: str = "",
) -> list[str]:
    """Compute each synthetic tile's ancestors and refuse those outside train.

    Parameters
    ----------
    synthetic : accepted rows with `generator_sha256`, `ancestors` (the groups that its conditions come from), `purpose`.
    lineage : generator_sha256 to {groups, slides, unknown}.
    real : the real store's rows, of all splits.
    salt, grid : the study's, to know its own codes and regions by.

    Returns
    -------
    The sources of unknown ancestry that were let through, for the card.

    Raises
    ------
    HistoloomError
        for a tile sampled to evaluate, a generator without a record, an ancestor in val or test, and, unless allowed,
        an ancestor that nobody knows.
    """
    wrong = synthetic[synthetic["purpose"] != "augment"]
    if len(wrong):
        made = f"{len(wrong)} tiles were made to evaluate (first: {wrong['tile_id'].iloc[0]})"
        raise HistoloomError(f"{made}, and those may never be emitted.")
    unknown: set[str] = set()
    for generator in synthetic["generator_sha256"].unique():
        if generator not in lineage:
            fact = f"Generator {generator[:12]} left no record of what it saw."
            raise HistoloomError(f"{fact} Sample again with `dvc repro`.")
        found = recognise(lineage[generator], real, salt, grid)
        if complaint := found.complaint(f"Generator {generator[:12]}"):
            raise HistoloomError(f"{complaint} Its tiles would leak.")
        unknown |= set(found.unknown)
    _check_sources(synthetic, real)
    if unknown and not allow_unknown:
        raise HistoloomError(
            f"Nobody knows what these ancestors saw: {', '.join(sorted(unknown)[:5])}. If you vouch that no "
            "held-out patient was among it, set emit.allow_unknown_ancestors: true; the card will say so."
        )
    return sorted(unknown)


def _check_sources(synthetic: pd.DataFrame, real: pd.DataFrame) -> None:
    """Refuse tiles whose conditions come from a group of val or test."""
    splits = dict(zip(real["split_group"], real["split"]))
    for group in synthetic["ancestors"].explode().dropna().unique():
        if splits.get(group) != "train":
            raise HistoloomError(
                f"Synthetic tiles were given conditions of group '{group}', whose split is "
                f"{splits.get(group)}. Conditions of emitted tiles may come from train alone."
            )
