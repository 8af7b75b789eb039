"""Each sample as it is."""

from __future__ import annotations

from histoloom.config.program import Reduction
from histoloom.sampling.drawn import Arrays, Drawn


def each(drawn: Drawn, config: Reduction) -> Arrays:
    """The one sample of a row; a plan has a row for each sample."""
    return drawn.samples[0]
