"""The gate before a dataset leaves: no synthetic tile whose ancestors touch a held-out group."""

from __future__ import annotations

import pandas as pd

from histoloom.data.lineage_match import first, recognise
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
    generators = sorted(synthetic["generator_sha256"].unique())
    if lost := [generator[:12] for generator in generators if generator not in lineage]:
        fact = f"Generator {', '.join(lost)} left no record of what it saw."
        raise HistoloomError(f"{fact} Sample again with `dvc repro`.")
    found = {generator: recognise(lineage[generator], real, salt, grid) for generator in generators}
    complaints = [each.complaint(f"Generator {generator[:12]}") for generator, each in found.items()]
    if said := [complaint for complaint in complaints if complaint]:
        raise HistoloomError("Synthetic tiles would leak.\n" + "\n".join(said))
    unknown = {name for each in found.values() for name in each.unknown}
    _check_sources(synthetic, real)
    if unknown and not allow_unknown:
        raise HistoloomError(
            f"Nobody knows what these ancestors saw: {first(sorted(unknown))}. If you vouch that no "
            "held-out patient was among it, set emit.allow_unknown_ancestors: true; the card will say so."
        )
    return sorted(unknown)


def _check_sources(synthetic: pd.DataFrame, real: pd.DataFrame) -> None:
    """Refuse tiles whose conditions come from a group of val or test."""
    splits = dict(zip(real["split_group"], real["split"]))
    groups = sorted(synthetic["ancestors"].explode().dropna().unique())
    if wrong := [f"'{group}', whose split is {splits.get(group)}" for group in groups if splits.get(group) != "train"]:
        raise HistoloomError(
            f"Synthetic tiles were given conditions of group {'; '.join(wrong)}. Conditions of emitted tiles may come from train alone."
        )
