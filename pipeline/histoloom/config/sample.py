"""The section `sample`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from histoloom.config.base import Distinct, Fraction, Solved
from histoloom.config.file_names import FileName
from histoloom.config.train_denoiser import Pictured


class Sample(Solved):
    chain: Annotated[tuple[FileName, ...], Distinct] = ()
    """names of `models` that sample one after another, each reading the arrays of the earlier ones; unstated, the only one"""
    augment: dict[Pictured, Fraction] = Field({})
    """noise that a picture or partner gets in sampling, as train_denoiser.augment adds it in training; unstated, none"""
    text_gradient: float = Field(0.0, ge=0)
    """how strongly the agreement of what is seen with its caption pushes each step, by the gradient of a CLIP of noised tiles
    (train_encoders.text.noised); beside guidance, or in place of it (guidance: 1)"""
