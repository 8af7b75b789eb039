"""The section `encode`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from histoloom.config.base import Section, Size


class Encode(Section):
    renamed: ClassVar[dict[str, str]] = {"forms": "symmetries"}

    batch_size: Size = 32
    symmetries: Literal["none", "flips", "turns"] = "flips"
    """cache each tile mirrored too (flips: 4 symmetries), or turned as well (turns: 8)"""
    mask_detail: Literal[1, 2, 4] = 1
    """parts a latent pixel into this many cells a side for the mask, where it is larger than a nucleus"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """what the autoencoder computes in; bf16 is fp32 where a CPU hasn't it"""
    edges: bool = Field(False, description="give the mask a channel of nuclear outlines; every slide has 'instances'")
