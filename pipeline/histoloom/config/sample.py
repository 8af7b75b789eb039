"""The section `sample`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from histoloom.config.base import Distinct, Fraction, Solved
from histoloom.config.file_names import FileName
from histoloom.config.train_denoiser import Pictured


class Sample(Solved):
    chain: Annotated[tuple[FileName, ...], Distinct] = ()
    """names of `models` that sample one after another, each reading the arrays of the earlier ones; unstated, the only one"""
    augment: dict[Pictured, Fraction] = Field({})
    """noise that a picture or partner gets in sampling, as train_denoiser.augment adds it in training; unstated, none"""
    oversample: dict[str, Annotated[float, Field(ge=1, le=1000)]] = Field({})
    """of a model of masks in a chain: mask class to a factor. Masks with this class are given to the next model so many times as often as
    others, within a part of the plan"""
    classifier_guidance: dict[Literal["text", "label"], Annotated[float, Field(gt=0)]] = Field({})
    """condition to the scale of classifier guidance: the gradient of a network that learnt noised tiles steers each step. For text it is a CLIP
    (train_encoders.text.noised), for label train_denoiser.classifier. It is used beside guidance, or in place of it (guidance: 1)"""
