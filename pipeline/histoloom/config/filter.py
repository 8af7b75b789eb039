"""The section `filter`."""

from __future__ import annotations

from typing import Annotated, Literal

from histoloom.config.base import Distinct, Fraction, Section
from histoloom.config.train_filters import FilterName


class Filter(Section):
    use: Annotated[tuple[FilterName | Literal["realism", "review"], ...], Distinct] = (
        "quality",
        "distance",
        "label",
        "realism",
        "near_copy",
    )
    """which filters, in this order"""
    min_yield: Fraction = 0.02
    """fraction of a class's tiles that must pass. If fewer pass, none of the class is accepted, and the stage says so"""
