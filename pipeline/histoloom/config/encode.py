"""The section `encode`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from histoloom.config.base import Section, Size


class Encode(Section):
    renamed: ClassVar[dict[str, str]] = {"forms": "symmetries"}

    batch_size: Size = 32
    """tiles in a forward pass; fixed, so that results do not depend on the number of workers"""
    symmetries: Literal["none", "flips", "turns"] = "flips"
    """cache each tile mirrored too (flips: 4 symmetries), or turned as well (turns: 8)"""
    mask_detail: Literal[1, 2, 4] = 1
    """the mask divides each latent pixel into so many cells a side; take more if a latent pixel is larger than a nucleus"""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """precision of the autoencoder; a CPU without bf16 uses fp32"""
    edges: bool = Field(
        False, description="give the mask a channel of nuclear outlines; needs `instances` or masks by stain"
    )
