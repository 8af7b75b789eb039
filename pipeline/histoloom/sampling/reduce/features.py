"""Features of the network."""

from __future__ import annotations

import torch

from histoloom.config.program import Reduction
from histoloom.errors import HistoloomError
from histoloom.sampling.drawn import Arrays, Drawn


def features(drawn: Drawn, config: Reduction) -> Arrays:
    """`vector` (b, size) float32: what the taps give of the tile, noised to `level`; the mean over its places (Baranchuk et al. 2022 keep
    the places)."""
    found = drawn.features(config.taps, config.level)
    pooled = []
    for name in config.taps:
        value = found[name]
        if not isinstance(value, torch.Tensor):
            raise HistoloomError(f"reduce: the module '{name}' gives no tensor: tap one inside it.")
        pooled.append(value.float().flatten(2).mean(2) if value.ndim > 2 else value.float())
    return {"vector": torch.cat(pooled, 1).cpu().numpy()}
