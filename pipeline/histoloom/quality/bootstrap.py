"""Drawing groups, because tiles of one patient are not independent."""

from __future__ import annotations

import numpy as np

FEW = 10
"""Fewer groups than this tell nothing of others: rows are drawn in their place."""


def group_draws(groups: np.ndarray, labels: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """`count` bootstrap draws of row numbers, each with every label.

    Whole groups are drawn where there are at least ten, and rows where there are fewer.
    """
    groups = groups.astype(str)
    names = np.unique(groups)
    draws = []
    for _ in range(count):
        if len(names) >= FEW:
            chosen = rng.choice(names, len(names))
            draw = np.concatenate([np.flatnonzero(groups == name) for name in chosen])
        else:
            draw = rng.integers(0, len(groups), len(groups))
        missing = sorted(set(labels) - set(labels[draw]))
        draws.append(np.concatenate([draw, *[np.flatnonzero(labels == label) for label in missing]]))
    return draws
