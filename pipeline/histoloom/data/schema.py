"""The columns of the tables, with units in their names."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SPLITS = ("train", "val", "test")

REQUIRED_SLIDE_COLUMNS = ("slide_id", "path", "patient_id")
OPTIONAL_SLIDE_COLUMNS = (
    "mpp", "label", "caption", "split", "annotations", "mask", "predicted", "instances", "partner", "organ", "stain", "site", "licence",
    "dataset",
)  # fmt: skip
DATASET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""A public data set's name: it stands before ids, and a colon between."""
SPOT_COLUMNS = ("spot_id", "slide_id", "x_level0_px", "y_level0_px", "label")


def _texts(*names: str) -> list[pa.Field]:
    return [pa.field(name, pa.string()) for name in names]


TILE_ROW = pa.schema(
    [
        *_texts("tile_id", "source", "slide_id", "patient_id", "split_group", "split", "label"),
        ("x_level0_px", pa.int64()),
        ("y_level0_px", pa.int64()),
        ("mpp", pa.float64()),
        ("tissue_fraction", pa.float64()),
        *_texts("caption", "spot_id"),
        ("masked", pa.bool_()),
        ("predicted", pa.bool_()),
        ("repaired", pa.float64()),
        *_texts("dataset", "slide_fields"),
    ]
)
"""One row a tile. `spot_id` is the spot that labelled it. `masked` is whether its mask says what it shows, `predicted` whether a
learner's does; never both. `x_level0_px`, `y_level0_px` are its upper left corner on the slide, `mpp` its scale. `repaired` is
the fraction of its pixels that a model made in place of pen. `dataset` is the
public set that its slide is of, and
`slide_fields` what slides.csv says of the slide in columns of the user's own, as JSON; older stores lack both.
"""

PLAN_ROW = pa.schema(
    [
        *_texts("tile_id", "part"),
        ("batch", pa.int64()),
        ("slot", pa.int64()),
        ("seed", pa.uint64()),
        *_texts("purpose", "request", "label", "caption", "rna", "genotype", "cohort", "number"),
        ("mpp", pa.float64()),
        *_texts("condition_ref", "split_group", "split", "program", "input_ref", "input_group", "input_conditions"),
        *_texts("like_ref", "like_group"),
    ]
)
"""One row a tile to be made. `condition_ref` is the tile whose conditions it is given, `request` what asked for it.

`program` is how the model is run (config/program.py), empty where it begins from noise alone. `input_ref` is the tile whose arrays are read then,
`input_group` its split group, and `input_conditions` JSON of its own conditions by column, where it is inverted under them. `like_ref` is the
tile whose embedding is given in place of its own, `like_group` that tile's split group.

`rna` is the key of an expression profile, `genotype` the markers' states as text (conditions/genotype.py), `cohort` and `number` are
JSON of a column of slides.csv to its value.
"""

GUIDANCE = pa.list_(
    pa.struct([("condition", pa.string()), ("scale", pa.float64()), ("start", pa.float64()), ("end", pa.float64())])
)
"""Guidance of a synthetic tile. `condition` is "all" where one scale and one interval hold for all conditions. `start` and
`end` are fractions of the training timesteps, 1 being noise, between which the scale acts; outside, a condition counts once.
"""

SYNTHETIC_ROW = pa.schema(
    [
        *(field for field in TILE_ROW if field.name not in ("predicted", "repaired", "dataset", "slide_fields")),
        *_texts("rna", "genotype", "cohort", "number"),
        ("seed", pa.uint64()),
        *_texts("scheduler"),
        ("steps", pa.int64()),
        *_texts("precision", "window_layout", "generator_sha256", "condition_ref", "program", "input_ref", "like_ref"),
        ("guidance", GUIDANCE),
        *_texts("request", "purpose"),
        ("ancestors", pa.list_(pa.string())),
    ]
)
"""A tile row of a synthetic tile. `steps` are the sampler's, `precision` is what the networks computed in, `window_layout` how
windows were laid on the slide that it was cut from (null for a single tile); `ancestors` are the split groups that
its conditions come from; its generator's are in the lineage.
"""

VERDICT_COLUMNS = {"accepted": pa.bool_(), "reject_reasons": pa.list_(pa.string())}
"""What verdicts add to a synthetic row beside the filters' scores; no reason where the tile is accepted."""
REFUSED = "too little of its class passed"
"""The reason of tiles of a class of which less than `filter.min_yield` passed: none of it is accepted to augment."""


_GROUP_ROWS = 16_384
"""Whoever asks for a part of a plan reads the groups of rows that hold it, not all."""


def write_rows(rows: pd.DataFrame, path: Path, schema: pa.Schema) -> None:
    """Write a table with exactly the schema's columns in their order."""
    table = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    pq.write_table(table.replace_schema_metadata(None), path, row_group_size=_GROUP_ROWS)
