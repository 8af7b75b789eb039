"""The section `encode`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from histoloom.config.base import Section, Size


class Encode(Section):
    renamed: ClassVar[dict[str, str]] = {"forms": "symmetries"}

    batch_size: Size = 32
    """tiles in a forward; fixed, so that bytes do not depend on the workers"""
    symmetries: Literal["none", "flips", "turns"] = "flips"
    """cache each tile mirrored too (flips: 4 symmetries), or turned as well (turns: 8)"""
    mask_detail: Literal[1, 2, 4] = 1
    """cells a side into which the mask divides a latent pixel; more if a latent pixel is larger than a nucleus"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """what the autoencoder computes in; a CPU without bf16 takes fp32"""
    edges: bool = Field(
        False, description="give the mask a channel of nuclear outlines; needs `instances` or masks by stain"
    )
