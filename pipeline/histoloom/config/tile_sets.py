"""The list `tile.sets`: sets of tiles that somebody cut already."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from histoloom.config.base import Scale, Section
from histoloom.config.file_keys import Names
from histoloom.config.file_names import ClassName, FileName

SetFormat = Literal["image_folder", "csv", "webdataset", "parquet", "npz", "hdf5"]
TILE_FIELDS = (
    "tile_id", "path", "patient_id", "slide_id", "label", "caption", "split", "mpp", "x_level0_px", "y_level0_px",
)  # fmt: skip
"""What a set may state of a tile, beside `image`, `mask`, `volume` and the further columns of slides.csv."""


class TileSet(Section):
    """One set. What is stated of a tile is looked for in `values`, `patterns`, columns and folders, in this order."""

    path: Annotated[str, Names.FILE]
    """a folder of pictures, a CSV of paths, or a file or glob of .tar, .parquet, .npz, .h5"""
    name: FileName | None = Field(
        None, description="prefix of its tiles' ids; unstated, the file name of path without its ending"
    )
    format: SetFormat | None = Field(None, description="form of the set; unstated, it is recognised by its files")
    mpp: Scale | None = Field(None, description="scale of its pictures, µm/px; unstated, its column mpp")
    scales: tuple[Scale, ...] = ()
    """µm/px that its tiles are cut at, such as [0.25, 0.5]; unstated, tile.mpp and tile.more_mpp"""
    table: Annotated[str | None, Names.FILE] = None
    """of image_folder: a CSV with further columns of its pictures; unstated, metadata.csv in it"""
    root: Annotated[str | None, Names.FILE] = None
    """of csv: the folder from which its paths count; unstated, the CSV's own"""
    columns: dict[str, str] = Field({})
    """histoloom's column names (image, mask, volume, and those of slides.csv), each with the set's own name for it; unstated, both are the same"""
    patterns: dict[str, str] = Field({})
    """column names, each with a regular expression that is searched in a tile's name; its first group is the value"""
    values: dict[str, str] = Field(
        {}, description="column names, each with one value for all tiles, such as dataset: NAME"
    )
    label_names: tuple[ClassName, ...] = Field((), description="names of the labels if they are numbers, from 0")
    masks: Annotated[str | None, Names.FILE] = None
    """of image_folder and csv: a folder of masks with the pictures' relative names"""
    mask_values: dict[int, str] = Field({})
    """values of mask pixels, each with its class in tile.masks.classes; unstated, 1 is the first class and 0 is background"""
    group_by: Literal["patient", "tile"] = "patient"
    """patient: the split group is the patient, or the slide if no patient is stated. tile: if neither is known, each
    tile is a group of its own. Tiles of one patient may then lie in several splits"""
    larger: Literal["centre", "grid"] = "centre"
    """pictures larger than tile_px are cut at their centre, or into a grid of tile.stride_px"""

    @property
    def id(self) -> str:
        """What begins the ids of its tiles."""
        return self.name or re.sub(r"[^A-Za-z0-9_-]+", "-", PurePath(self.path).stem).strip("-_") or "set"

    @field_validator("scales")
    @classmethod
    def _differ(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        if len({f"{mpp:g}" for mpp in scales}) < len(scales):
            raise ValueError(f"scales names one of {', '.join(f'{mpp:g}' for mpp in scales)} twice")
        return scales

    @field_validator("patterns")
    @classmethod
    def _with_a_group(cls, patterns: dict[str, str]) -> dict[str, str]:
        for column, pattern in patterns.items():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"patterns.{column} is no regular expression ({error})") from None
            if groups < 1:
                raise ValueError(f"patterns.{column} has no group: put brackets about the value, as in ^(P\\d+)_")
        return patterns

    @model_validator(mode="after")
    def _once(self):
        for column in self.patterns.keys() & self.values.keys():
            raise ValueError(f"{column} stands in patterns and in values: state it once")
        for column in (*self.patterns, *self.values):
            if column in self.columns:
                raise ValueError(f"{column} stands in columns and in patterns or values: state it once")
        return self
