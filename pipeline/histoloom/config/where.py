"""Which tiles are meant: `where` of a request, and of what it begins from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from histoloom.config.base import Fraction, Section


class Where(Section):
    """The tiles whose conditions are taken; all that is stated must hold."""

    label: str | None = None
    slide_id: str | None = None
    patient_id: str | None = None
    gene: dict[str, Literal["high", "low"]] = Field({}, description="samples in the gene's upper or lower quarter")
    genotype: dict[str, str] = Field({}, description="marker to state: wt, or an alteration's name")
    cohort: dict[str, str] = Field({}, description="column of train_encoders.cohort to the value that the slide has")
    contains: dict[str, Fraction] = Field({}, description="mask class to the least fraction of the tile")
