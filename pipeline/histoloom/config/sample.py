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
