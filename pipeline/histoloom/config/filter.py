"""The section `filter`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from histoloom.config.base import Distinct, Fraction, Section
from histoloom.config.train_filters import FilterName


class Filter(Section):
    use: Annotated[tuple[FilterName | Literal["review"], ...], Distinct] = Field(
        ("quality", "distance", "label", "disagreement", "near_copy"), description="which filters, in this order"
    )
    min_yield: Fraction = Field(
        0.02,
        description="least fraction of a class's tiles that must pass; fewer is an error, so that no class vanishes quietly",
    )
