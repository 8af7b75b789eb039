"""How far what is made is from the tile that it began from."""

from __future__ import annotations

import numpy as np

from histoloom.config.program import Reduction
from histoloom.errors import HistoloomError
from histoloom.sampling.drawn import Arrays, Drawn

RESIDUAL = "residual"


def residual(drawn: Drawn, config: Reduction) -> Arrays:
    """`residual` (b, h, w) float32, the mean over samples and colours of the absolute difference, in grey levels; and the first sample's
    `image`."""
    if "image" not in drawn.samples[0]:
        raise HistoloomError(f"reduce: residual is of pictures, and the model makes {', '.join(drawn.samples[0])}.")
    own = drawn.rows.inputs["image"].astype(np.float64)
    differences = [np.abs(one["image"] - own).mean(-1) for one in drawn.samples]
    return {"image": drawn.samples[0]["image"], RESIDUAL: np.mean(differences, 0).astype(np.float32)}
