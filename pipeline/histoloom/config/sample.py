"""The section `sample`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from histoloom.config.base import Guided, Positive, Scheduler


class Sample(Guided):
    scheduler: Scheduler = "dpmsolver++"
    steps: Positive = 20
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="what the networks compute in; bf16 is fp32 where a CPU hasn't it"
    )
