"""The best of several samples."""

from __future__ import annotations

import numpy as np

from histoloom.config.program import Reduction
from histoloom.sampling.drawn import Arrays, Drawn


def best(drawn: Drawn, config: Reduction) -> Arrays:
    """The sample whose arrays are nearest, by the mean squared difference, to the mean of all, or to the tile that it began from."""
    names = [*drawn.samples[0]] if config.by == "consensus" else [n for n in drawn.samples[0] if n in drawn.rows.inputs]
    score = np.zeros((len(drawn.samples), len(drawn.rows.seeds)))
    for name in names:
        values = np.stack([one[name] for one in drawn.samples]).astype(np.float64)
        wanted = values.mean(0) if config.by == "consensus" else drawn.rows.inputs[name].astype(np.float64)
        score += np.square(values - wanted).mean(axis=tuple(range(2, values.ndim)))
    chosen = score.argmin(0)
    return {
        name: np.stack([drawn.samples[number][name][row] for row, number in enumerate(chosen)])
        for name in drawn.samples[0]
    }
