"""The same tissue under two patients' ids. No split by patient can keep it apart."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from histoloom.config import Tile
from histoloom.data.rows import spread
from histoloom.data.store import TileStore
from histoloom.errors import Fault
from histoloom.progress import track
from histoloom.quality.copy_search import build_index, candidates, register, slide, turned

_BATCH = 512
_QUERIES = 24
_PER_FORM = 64
_REGISTERED = 4
_SAME = 0.5
"""Between the highest score of different tissue and the lowest of shifted copies (docs/reference/benchmarks.md, filters)."""
_LEAST_SHARED = 0.25
"""Of the tiles looked at; a plain tile may fit some other by chance."""


def find_duplicates(store: TileStore, config: Tile) -> list[Fault]:
    """Faults of pairs of slides of different patients that show the same tissue.

    A few tiles of each slide are sought among all slides' tiles, under flips, turns and shifts.
    """
    rows = _apart(store.rows(), max(1, round(config.tile_px / config.stride_px / 2)))
    index = build_index(rows["tile_id"].to_numpy(str), store.batches(rows, _BATCH))
    patients, slides = rows["patient_id"].to_numpy(str), rows["slide_id"].to_numpy(str)
    chosen = [spread(part, _QUERIES).index.to_numpy() for _, part in rows.groupby("slide_id")]
    looked = {slides[queries[0]]: len(queries) for queries in chosen}
    shared: Counter = Counter()
    for queries in track(chosen, "looking for tissue under two ids", len(chosen)):
        own = patients[queries[0]]
        best = np.zeros(len(queries))
        mates = np.zeros(len(queries), int)
        for form in turned(index.grey[queries]):
            for row, places in enumerate(candidates(form, index, _PER_FORM)):
                score, mate = _best(form[row], places[patients[places] != own], index.grey)
                if score > best[row]:
                    best[row], mates[row] = score, mate
        shared.update((slides[queries[row]], slides[mates[row]]) for row in np.flatnonzero(best > _SAME))
    fraction = {pair: count / looked[pair[0]] for pair, count in shared.items()}
    pairs = {tuple(sorted(pair)) for pair, found in fraction.items() if found >= _LEAST_SHARED}
    return [
        Fault(
            config.stated_in,
            f"slides '{a}' and '{b}' are of two patients and show the same tissue "
            f"({max(fraction.get((a, b), 0), fraction.get((b, a), 0)):.0%} of the tiles looked at).",
            "give both the same patient_id, or remove one.",
        )
        for a, b in sorted(pairs)
    ]


def _best(tile: np.ndarray, places: np.ndarray, grey: np.ndarray) -> tuple[float, int]:
    """The highest correlation with a tile at one of `places`, and which one it is."""
    if not len(places):
        return 0.0, 0
    likely = places[np.argsort(-slide(tile, grey[places])[0], kind="stable")[:_REGISTERED]]
    scores = [register(tile, grey[place]) for place in likely]
    return max(scores), int(likely[np.argmax(scores)])


def _apart(rows: pd.DataFrame, every: int) -> pd.DataFrame:
    """Tiles half a side apart, so that a shift can be followed, and a tile's own neighbours don't crowd out what is sought."""
    kept = []
    for _, part in rows.groupby("slide_id", sort=True):
        places = part[["x_level0_px", "y_level0_px"]]
        if (places < 0).any(axis=None):  # of a set that doesn't say where its tiles lie
            kept.append(part)
            continue
        steps = [np.diff(np.unique(places[axis])) for axis in places]
        stride = min((int(step.min()) for step in steps if len(step)), default=1)
        kept.append(part[~(places // (every * stride)).duplicated()])
    return pd.concat(kept).reset_index(drop=True)
