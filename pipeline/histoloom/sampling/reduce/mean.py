"""The mean of samples, and how far they differ."""

from __future__ import annotations

import numpy as np

from histoloom.config.program import Reduction
from histoloom.errors import HistoloomError
from histoloom.sampling.drawn import Arrays, Drawn

DEVIATION = "deviation"


def mean(drawn: Drawn, config: Reduction) -> Arrays:
    """Of pictures, volumes or vectors: each array's mean, and `deviation`, the standard deviation of the samples, float32.

    Raises
    ------
    HistoloomError
        for masks, whose classes have no mean.
    """
    names = [name for name in drawn.samples[0] if name in ("image", "vector", "volume")]
    if len(names) != 1:
        raise HistoloomError(
            f"reduce: mean is of pictures, and the model makes {', '.join(drawn.samples[0])}: take vote or staple."
        )
    values = np.stack([one[names[0]] for one in drawn.samples]).astype(np.float64)
    middle, kind = values.mean(0), drawn.samples[0][names[0]].dtype
    whole = np.issubdtype(kind, np.integer)
    return {
        names[0]: (np.rint(middle) if whole else middle).astype(kind),
        DEVIATION: values.std(0, ddof=1 if len(values) > 1 else 0).astype(np.float32),
    }
