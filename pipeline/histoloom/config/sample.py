"""The section `sample`."""

from __future__ import annotations

from typing import Annotated, Literal

from histoloom.config.base import Distinct, Guided, Positive, Scheduler
from histoloom.config.file_names import FileName


class Sample(Guided):
    chain: Annotated[tuple[FileName, ...], Distinct] = ()
    """of `models`: which are run one after another, each given what those before it made; unstated, the one that there is"""
    scheduler: Scheduler = "dpmsolver++"
    steps: Positive = 20
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """what the networks compute in; bf16 is fp32 where a CPU hasn't it"""
