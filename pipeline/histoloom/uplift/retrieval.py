"""Real tiles without labels that are most like labelled ones: what a generator must do better than, since it saw them too."""

from __future__ import annotations

import numpy as np

NEAREST = 5
"""How many labelled tiles have a say in what an unlabelled one shows."""


def retrieved(
    labelled: np.ndarray, truth: np.ndarray, pool: np.ndarray, wanted: dict[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Unlabelled tiles, and the classes that the labelled tiles nearest to them have.

    A tile's class is that of most of its nearest labelled tiles, each counting for as much more as its class is rarer. The tiles of each
    class that are nearest to a labelled tile of it come first.

    Parameters
    ----------
    labelled, pool : features (n, d) and (m, d), compared by cosine.
    truth : (n,) class numbers.
    wanted : class to how many tiles of it are wanted.

    Returns
    -------
    Positions in the pool, and a class number for each: fewer than wanted, where the pool has fewer.
    """
    classes = len(wanted)
    if not len(pool) or not len(labelled):
        return np.empty(0, int), np.empty(0, int)
    near, which = _nearest(labelled, pool, min(NEAREST, len(labelled)))
    weight = 1 / np.bincount(truth, minlength=max(wanted, default=0) + 1).clip(1)
    votes = np.zeros((len(pool), len(weight)))
    np.add.at(votes, (np.arange(len(pool))[:, None], truth[which]), weight[truth[which]])
    told = votes.argmax(1)
    of_class = np.where(truth[which] == told[:, None], near, -np.inf).max(1)
    chosen = [
        np.flatnonzero(told == number)[np.argsort(-of_class[told == number], kind="stable")][:count]
        for number, count in wanted.items()
    ]
    places = np.concatenate(chosen) if classes else np.empty(0, int)
    return places, told[places]


def most_alike(labelled: np.ndarray, pool: np.ndarray, count: int) -> np.ndarray:
    """Positions of the unlabelled tiles that are nearest to any labelled one."""
    if not len(pool) or not len(labelled):
        return np.empty(0, int)
    return np.argsort(-_nearest(labelled, pool, 1)[0][:, 0], kind="stable")[:count]


def _nearest(labelled: np.ndarray, pool: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(m, count) cosines with the nearest labelled tiles, and their positions."""
    import faiss

    first, second = (np.ascontiguousarray(part, np.float32).copy() for part in (labelled, pool))
    for part in (first, second):
        faiss.normalize_L2(part)
    index = faiss.IndexFlatIP(first.shape[1])
    index.add(first)
    return index.search(second, count)
