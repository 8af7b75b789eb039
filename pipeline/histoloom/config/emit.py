"""The section `emit`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from histoloom.config.base import Distinct, Positive, Section


class Emit(Section):
    formats: Annotated[tuple[Literal["imagefolder", "webdataset", "parquet", "coco"], ...], Distinct] = Field(
        ("imagefolder", "webdataset", "parquet"), min_length=1
    )
    """folders of PNG files, tar shards, tables with the pictures inside; coco holds the masks too, of the tiles whose mask is known"""
    include: Annotated[tuple[Literal["real", "synthetic"], ...], Distinct] = Field(("real", "synthetic"), min_length=1)
    """which tiles are emitted. With synthetic alone, variations of real tiles are refused, and the card has an audit"""
    name: str = Field("histoloom-dataset", pattern=r"^\S.*$", max_length=200, description="of the dataset")
    licence: str = Field("unknown", pattern=r"^\S.*$")
    """of the dataset, as its card states it"""
    captions: bool = Field(False, description="emit captions too; they may quote pathology reports")
    allow_unknown_ancestors: bool = False
    """emit although a loaded model's training data are unknown"""
    shard_tiles: Positive = 2000
    """most tiles of a tar shard or a Parquet file"""
