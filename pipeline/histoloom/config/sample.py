"""The section `sample`."""

from __future__ import annotations

from typing import Annotated, Literal

from histoloom.config.base import Distinct, Guided, Positive, Scheduler
from histoloom.config.file_names import FileName


class Sample(Guided):
    chain: Annotated[tuple[FileName, ...], Distinct] = ()
    """names of `models` that sample one after another, each reading the arrays of the earlier ones; unstated, the only one"""
    scheduler: Scheduler = "dpmsolver++"
    steps: Positive = 20
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """what the networks compute in; a CPU without bf16 takes fp32"""
